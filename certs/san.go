package certs

import (
	"crypto/x509"
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"strings"

	"github.com/drawbridge-gateway/drawbridge/certs/safetext"
)

// A SANKind is a kind of subject alternative name.
type SANKind int

// The supported kinds.
const (
	SANDNS SANKind = iota + 1
	SANURI
	SANIP
	SANEmail
)

// String returns the prefix that names the kind, without its colon.
func (k SANKind) String() string {
	switch k {
	case SANDNS:
		return "DNS"
	case SANURI:
		return "URI"
	case SANIP:
		return "IP"
	case SANEmail:
		return "email"
	}
	return "unknown"
}

// A SAN is a subject alternative name that a peer must have exactly. A wildcard
// matches only itself.
type SAN struct {
	Kind SANKind
	// Value is in the normalized form of ParseSANs.
	Value string
}

// String returns the name with its prefix: "DNS:a.example".
func (s SAN) String() string { return s.Kind.String() + ":" + s.Value }

// ParseSANs reads names such as "DNS:a.example", "URI:spiffe://corp/pay",
// "IP:10.0.0.1" and "email:ops@corp.example". A name without a prefix is an
// address if it parses as one, an email address if it has an @ and no colon, a
// URI if it has a colon, and a DNS name otherwise. DNS names and the part
// after the @ are lowercased. At most 100 names are accepted. The error is
// Faults with the fields "[0]", "[1]"….
func ParseSANs(names []string) ([]SAN, error) {
	var bad Faults
	if len(names) > maxSANs {
		bad.add("", "holds %d names: at most %d are allowed", len(names), maxSANs)
		return nil, bad
	}
	var sans []SAN
	for i, name := range names {
		s, err := ParseSAN(name)
		if err != nil {
			bad.add(fmt.Sprintf("[%d]", i), "%v", err)
			continue
		}
		sans = append(sans, s)
	}
	if err := bad.err(); err != nil {
		return nil, err
	}
	return sans, nil
}

// ParseSAN reads one name like ParseSANs.
func ParseSAN(name string) (SAN, error) {
	s, problem := parseSAN(splitSAN(name))
	if problem != "" {
		return SAN{}, errors.New(problem)
	}
	return s, nil
}

func splitSAN(name string) (SANKind, string) {
	if prefix, rest, ok := strings.Cut(name, ":"); ok {
		for _, k := range []SANKind{SANDNS, SANURI, SANIP, SANEmail} {
			if strings.EqualFold(prefix, k.String()) {
				return k, rest
			}
		}
	}
	if _, err := netip.ParseAddr(name); err == nil {
		return SANIP, name
	}
	switch {
	case strings.Contains(name, ":"):
		return SANURI, name
	case strings.Contains(name, "@"):
		return SANEmail, name
	}
	return SANDNS, name
}

func parseSAN(kind SANKind, value string) (SAN, string) {
	shown := safetext.Printable(value, 100)
	if value == "" {
		return SAN{}, `is empty: want a name such as "DNS:a.example", "URI:spiffe://corp/pay", "IP:10.0.0.1" or "email:ops@corp.example"`
	}
	switch kind {
	case SANIP:
		ip, err := netip.ParseAddr(value)
		if err != nil || ip.Zone() != "" {
			return SAN{}, fmt.Sprintf("%q is not an IP address", shown)
		}
		return SAN{SANIP, ip.Unmap().String()}, ""
	case SANURI:
		u, err := url.Parse(value)
		if err != nil || u.Scheme == "" {
			return SAN{}, fmt.Sprintf("%q is not a URI with a scheme, such as spiffe://corp/pay", shown)
		}
		return SAN{SANURI, u.String()}, ""
	case SANEmail:
		local, domain, ok := strings.Cut(value, "@")
		if !ok || local == "" || !isHostName(domain) || !safetext.Plain(local) {
			return SAN{}, fmt.Sprintf("%q is not an email address", shown)
		}
		return SAN{SANEmail, local + "@" + strings.ToLower(domain)}, ""
	}
	name := normalName(value)
	if !isHostName(strings.TrimPrefix(name, "*.")) {
		return SAN{}, fmt.Sprintf("%q is not a DNS name", shown)
	}
	return SAN{SANDNS, name}, ""
}

// isHostName reports whether s could be a host's DNS name: ASCII, labels of at
// most 63 bytes, 253 in total. Underscores are allowed, because they are in
// use.
func isHostName(s string) bool {
	if len(s) > 253 {
		return false
	}
	for label := range strings.SplitSeq(s, ".") {
		if label == "" || len(label) > 63 {
			return false
		}
		for i := range len(label) {
			c := label[i]
			if !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-' || c == '_') {
				return false
			}
		}
	}
	return true
}

// Matches reports whether a certificate has the name.
func (s SAN) Matches(c *x509.Certificate) bool {
	switch s.Kind {
	case SANDNS:
		for _, name := range c.DNSNames {
			if strings.EqualFold(strings.TrimSuffix(name, "."), s.Value) {
				return true
			}
		}
	case SANURI:
		for _, u := range c.URIs {
			if u.String() == s.Value {
				return true
			}
		}
	case SANIP:
		for _, ip := range c.IPAddresses {
			if addr, ok := netip.AddrFromSlice(ip); ok && addr.Unmap().String() == s.Value {
				return true
			}
		}
	case SANEmail:
		for _, name := range c.EmailAddresses {
			at := strings.LastIndexByte(name, '@')
			if at >= 0 && name[:at]+"@"+strings.ToLower(name[at+1:]) == s.Value {
				return true
			}
		}
	}
	return false
}

// SANsOf returns all names of a certificate, in the normal form of ParseSANs.
func SANsOf(c *x509.Certificate) []SAN {
	out := make([]SAN, 0, len(c.DNSNames)+len(c.URIs)+len(c.IPAddresses)+len(c.EmailAddresses))
	for _, name := range c.DNSNames {
		out = append(out, SAN{SANDNS, normalName(name)})
	}
	for _, u := range c.URIs {
		out = append(out, SAN{SANURI, u.String()})
	}
	for _, ip := range c.IPAddresses {
		if addr, ok := netip.AddrFromSlice(ip); ok {
			out = append(out, SAN{SANIP, addr.Unmap().String()})
		}
	}
	for _, name := range c.EmailAddresses {
		if at := strings.LastIndexByte(name, '@'); at >= 0 {
			out = append(out, SAN{SANEmail, name[:at] + "@" + strings.ToLower(name[at+1:])})
		}
	}
	return out
}
