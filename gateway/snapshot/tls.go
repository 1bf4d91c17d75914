package snapshot

import (
	"crypto/tls"
	"fmt"
	"slices"

	"github.com/drawbridge-gateway/drawbridge/certs"
	"github.com/drawbridge-gateway/drawbridge/gateway/invalid"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

// tlsSettings holds the settings that ServerTls and UpstreamTls share.
type tlsSettings struct {
	minVersion, maxVersion uint16
	cipherSuites           []uint16
	groups                 []tls.CurveID
	alpn                   []string
}

// commonTLS has the fields that ServerTls and UpstreamTls share.
type commonTLS interface {
	GetMinVersion() adminv1.TlsVersion
	GetMaxVersion() adminv1.TlsVersion
	GetCipherSuites() []string
	GetGroups() []string
	GetAlpn() []string
}

func (s *scope) tlsSettings(path invalid.Path, t commonTLS) tlsSettings {
	var out tlsSettings
	out.minVersion = s.tlsVersion(path.Field("min_version"), t.GetMinVersion())
	out.maxVersion = s.tlsVersion(path.Field("max_version"), t.GetMaxVersion())
	lowest, highest := out.minVersion, out.maxVersion
	if lowest == 0 {
		lowest = tls.VersionTLS12
	}
	if highest == 0 {
		highest = tls.VersionTLS13
	}
	switch {
	case lowest <= highest:
	case out.minVersion == 0:
		s.Add(path.Field("min_version"), "must be set too, to at most max_version: its default is TLS 1.2, which is above %s", tls.VersionName(highest))
	default:
		s.Add(path.Field("min_version"), "is %s, above max_version, which is %s", tls.VersionName(lowest), tls.VersionName(highest))
	}

	suites, warnings, err := certs.ParseCipherSuites(t.GetCipherSuites())
	if err != nil {
		s.addFaults(path.Field("cipher_suites"), err)
	}
	for _, w := range warnings {
		s.Warn(warnCipherSuites, path.Field("cipher_suites"), "%s", w)
	}
	if len(suites) > 0 && lowest >= tls.VersionTLS13 {
		s.Warn(warnNoEffect, path.Field("cipher_suites"), "has no effect: min_version is TLS 1.3, whose suites cannot be chosen")
	}
	out.cipherSuites = suites

	if out.groups, err = certs.ParseGroups(t.GetGroups()); err != nil {
		s.addFaults(path.Field("groups"), err)
	}
	for i, p := range t.GetAlpn() {
		at := path.Field("alpn").Index(i)
		if p == "" || len(p) > 255 {
			s.Add(at, "has %d bytes; a protocol's name has 1 to 255 (RFC 7301)", len(p))
		} else if slices.Contains(t.GetAlpn()[:i], p) {
			s.Add(at, "is %q, which is in the list twice", p)
		}
	}
	out.alpn = slices.Clone(t.GetAlpn())
	return out
}

func (s *scope) tlsVersion(p invalid.Path, v adminv1.TlsVersion) uint16 {
	if !enum(v, adminv1.TlsVersion_name) {
		return 0
	}
	switch v {
	case adminv1.TlsVersion_TLS_VERSION_1_0, adminv1.TlsVersion_TLS_VERSION_1_1:
		s.Warn(warnDeprecatedTLS, p, "allows %s, which RFC 8996 deprecates because its records and signatures use MD5 and SHA-1", tls.VersionName(versions[v]))
	}
	return versions[v]
}

var versions = map[adminv1.TlsVersion]uint16{
	adminv1.TlsVersion_TLS_VERSION_1_0: tls.VersionTLS10,
	adminv1.TlsVersion_TLS_VERSION_1_1: tls.VersionTLS11,
	adminv1.TlsVersion_TLS_VERSION_1_2: tls.VersionTLS12,
	adminv1.TlsVersion_TLS_VERSION_1_3: tls.VersionTLS13,
}

// useCertificate returns the live certificate of the name. The store reports dangling
// references.
func (s *scope) useCertificate(p invalid.Path, name string) *certs.Certificate {
	c := s.job.next.certificates.Get(name)
	if c == nil {
		return nil
	}
	if c.down != "" {
		s.Add(p, "certificate %q is down: %s", name, c.down)
	}
	return c.live
}

// warnUse warns of properties of a certificate that may be unintended in this
// use.
func (s *scope) warnUse(p invalid.Path, name string, c *certs.Certificate, u certs.Use) {
	findings, warnings := c.UseFindings(u)
	for i, w := range warnings {
		s.AddWarning(invalid.Warning{Field: p, Message: fmt.Sprintf("certificate %q: %s", name, w), Code: warnCertificate, Finding: string(findings[i])})
	}
}

// useTrust returns the live trust bundles of the names.
func (s *scope) useTrust(p invalid.Path, names []string) []*certs.TrustBundle {
	var out []*certs.TrustBundle
	twice := duplicates(names)
	for i, name := range names {
		at := p.Index(i)
		if twice[i] {
			s.Add(at, "is %q, which is in the list twice", name)
		}
		b := s.job.next.bundles.Get(name)
		if b == nil {
			continue
		}
		if b.down != "" {
			s.Add(at, "trust bundle %q is down: %s", name, b.down)
		}
		if b.trust != nil {
			out = append(out, b.trust)
		}
	}
	return out
}

// systemTrust returns the system's roots. They are read once for all upstreams that
// name no trust bundle, and again for an edit that requests it.
func (s *scope) systemTrust(p invalid.Path) []*certs.TrustBundle {
	j := s.job
	if j.next.system == nil {
		switch read := j.material.system; {
		case read == nil && j.prev.system == nil:
			j.needs.System = true
			return nil
		case read == nil:
			j.next.system = j.prev.system
		case read.err != nil:
			s.Add(p, "must name a trust bundle: %v", read.err)
			return nil
		case read.trust.Equal(j.prev.system):
			j.next.system = j.prev.system
		default:
			j.next.system = read.trust
		}
	}
	return []*certs.TrustBundle{j.next.system}
}
