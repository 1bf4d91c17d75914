package certs

import (
	"crypto/rsa"
	"crypto/x509"
	"encoding/asn1"
	"fmt"
	"math/big"
	"strings"
	"sync"
	"time"

	"github.com/drawbridge-gateway/drawbridge/certs/safetext"
)

var oidAuthorityKeyID = asn1.ObjectIdentifier{2, 5, 29, 35}

// A Finding is the name of a valid but unusual property of a certificate, for
// programs. Each Finding has a sentence for people.
type Finding string

// The findings. UseFindings returns those that depend on how a certificate is
// used.
const (
	FindingOrderCorrected      Finding = "ORDER_MENDED"
	FindingMissingIntermediate Finding = "MISSING_INTERMEDIATE"
	FindingNoSAN               Finding = "NO_SAN"
	FindingWeakKey             Finding = "WEAK_KEY"
	FindingWeakSignature       Finding = "WEAK_SIGNATURE"
	FindingNearExpiry          Finding = "NEAR_EXPIRY"
	FindingExpired             Finding = "EXPIRED"
	FindingNotYetValid         Finding = "NOT_YET_VALID"
	FindingLongLifetime        Finding = "LONG_LIFETIME"
	FindingNoClientAuth        Finding = "NO_CLIENT_AUTH"
	FindingNoServerAuth        Finding = "NO_SERVER_AUTH"
	FindingCAAsLeaf            Finding = "CA_AS_LEAF"
	FindingDuplicate           Finding = "DUPLICATE"
	FindingUnrelated           Finding = "STRANGER"
	FindingNotACA              Finding = "NOT_A_CA"
	// FindingCannotSign: a CA in a trust bundle cannot issue, so no chain through
	// it is accepted.
	FindingCannotSign Finding = "CANNOT_SIGN"
	// FindingUnneededPassphrase: a passphrase came with a key that is not
	// encrypted.
	FindingUnneededPassphrase Finding = "UNNEEDED_PASSPHRASE"
	// FindingManyNames: the certificate has more names than an Info lists.
	FindingManyNames Finding = "MANY_NAMES"
)

const (
	// nearExpiry is the remaining validity at which a warning begins. ACME clients
	// renew at the same point.
	nearExpiry = 30 * 24 * time.Hour
	// longLifetime is the longest validity that browsers accept from public CAs.
	longLifetime = 398 * 24 * time.Hour
)

// Use is the role in which a certificate is presented.
type Use int

const (
	AsClient Use = iota // an upstream's client presents it
	AsServer            // a TLS listener presents it
)

// UseFindings returns the findings for this use of the certificate, each with
// its sentence. Info holds those that apply to any use.
//
// The findings are cached, because a listener with ten thousand certificates reads
// the findings of all of them whenever one is replaced. The caller must not modify
// the slices.
func (c *Certificate) UseFindings(u Use) ([]Finding, []string) {
	used := &c.uses[u]
	used.once.Do(func() { used.findings, used.warnings = c.useFindings(u) })
	return used.findings, used.warnings
}

// useReport holds the findings for one use of a certificate.
type useReport struct {
	once     sync.Once
	findings []Finding
	warnings []string
}

func (c *Certificate) useFindings(u Use) (findings []Finding, warnings []string) {
	add := func(f Finding, format string, args ...any) {
		findings, warnings = append(findings, f), append(warnings, fmt.Sprintf(format, args...))
	}
	finding, usage, role, peers := FindingNoClientAuth, x509.ExtKeyUsageClientAuth, "a client's", "servers"
	if u == AsServer {
		finding, usage, role, peers = FindingNoServerAuth, x509.ExtKeyUsageServerAuth, "a server's", "clients"
	}
	leaf := c.chain[0]
	for i, x := range c.chain {
		if i > 0 && isSelfIssued(x) {
			break // peers do not check the usages of a root
		}
		if !usableAs(x, usage) {
			add(finding, "%s may not be used as %s, as it is here: its extended key usages are %s, without %s; %s refuse it",
				certSubject(c.chain, i), role, usageList(x), extKeyUsageNames[usage], peers)
		}
	}
	signs := leaf.KeyUsage == 0 || leaf.KeyUsage&x509.KeyUsageDigitalSignature != 0
	if !signs {
		add(finding, "it may not be used as %s under TLS 1.3, nor with ECDHE: its key usages lack digitalSignature", role)
	}
	if _, total := altNames(leaf, 0); u == AsServer && total == 0 && (leaf.IsCA || !usableAs(leaf, usage)) {
		add(FindingNoSAN, noSAN) // in other cases Info already warns
	}
	return findings, warnings
}

const noSAN = "it has no subject alternative name: clients reject it as a server certificate, whatever its common name"

// LeadsTo reports whether one of the bundles contains a certificate of the
// chain, or the issuer of one of them. It ignores the validity period, because
// it is about the issuer only.
func (c *Certificate) LeadsTo(bundles ...*TrustBundle) bool {
	for _, b := range bundles {
		for _, anchor := range b.certs {
			for _, x := range c.chain {
				if x.Equal(anchor) || issued(anchor, x) {
					return true
				}
			}
		}
	}
	return false
}

// A note is a finding and its sentence.
type note struct {
	finding Finding
	text    string
}

// warn adds a finding to one list and its sentence to the other.
func (i *Info) warn(f Finding, format string, args ...any) {
	i.Findings = append(i.Findings, f)
	i.Warnings = append(i.Warnings, fmt.Sprintf(format, args...))
}

// examine adds warnings about the leaf, and about faults that make any other
// certificate of the chain unusable.
func (info *Info) examine(chain []*x509.Certificate, now time.Time) {
	for i, c := range chain {
		subject := certSubject(chain, i)
		day := c.NotAfter.UTC().Format(time.DateOnly)
		switch left := c.NotAfter.Sub(now); {
		case left < 0:
			info.warn(FindingExpired, "%s expired on %s", subject, day)
		case now.Before(c.NotBefore):
			info.warn(FindingNotYetValid, "%s is not valid before %s", subject, c.NotBefore.UTC().Format(time.RFC3339))
		case left < nearExpiry:
			info.warn(FindingNearExpiry, "%s expires on %s, in %s", subject, day, safetext.Count(int(left/(24*time.Hour)), "day"))
		}
		if k, ok := c.PublicKey.(*rsa.PublicKey); ok && k.N.BitLen() < 2048 {
			info.warn(FindingWeakKey, "%s has a weak key: RSA of %d bits, and 2048 is the safe minimum", subject, k.N.BitLen())
		}
		if isWeakSignature(c.SignatureAlgorithm) && !isSelfIssued(c) { // peers do not check a root's own signature
			info.warn(FindingWeakSignature, "%s is signed with %s, which peers refuse", subject, c.SignatureAlgorithm)
		}
	}
	leaf := chain[0]
	if leaf.IsCA || !usableAs(leaf, x509.ExtKeyUsageServerAuth) {
		return // the checks below apply to servers
	}
	if _, total := altNames(leaf, 0); total == 0 {
		info.warn(FindingNoSAN, noSAN)
	}
	if life := leaf.NotAfter.Sub(leaf.NotBefore); life > longLifetime {
		info.warn(FindingLongLifetime, "it is valid for %s, longer than the %d that public CAs issue and browsers accept",
			safetext.Count(int(life/(24*time.Hour)), "day"), int(longLifetime/(24*time.Hour)))
	}
}

func isWeakSignature(a x509.SignatureAlgorithm) bool {
	switch a {
	case x509.MD2WithRSA, x509.MD5WithRSA, x509.SHA1WithRSA, x509.DSAWithSHA1, x509.ECDSAWithSHA1:
		return true
	}
	return false
}

// certSubject returns the subject of a sentence about a certificate of the
// chain.
func certSubject(chain []*x509.Certificate, i int) string {
	if i == 0 {
		return "it"
	}
	return "its intermediate " + describeName(chain[i])
}

// lacksIntermediate reports whether the issuer of the last certificate is
// probably an intermediate, which the chain should contain, rather than a root.
// A certificate does not state this about its issuer.
func lacksIntermediate(last *x509.Certificate, isLeaf bool) bool {
	if above := issuersIssuer(last); above != nil {
		return string(above) != string(last.RawIssuer)
	}
	name := strings.ToLower(last.Issuer.CommonName)
	for _, word := range []string{"intermediate", "issuing", "subordinate"} {
		if strings.Contains(name, word) {
			return true
		}
	}
	// CAs that publish a URL for a leaf's issuer use intermediates. Publicly
	// trusted CAs are required to.
	return isLeaf && len(last.IssuingCertificateURL) > 0
}

// issuersIssuer returns the issuer name of the issuer's certificate, or nil.
// Easy-RSA and many OpenSSL configurations write it into the authority key
// identifier (RFC 5280 section 4.2.1.1).
func issuersIssuer(c *x509.Certificate) []byte {
	for _, e := range c.Extensions {
		if !e.Id.Equal(oidAuthorityKeyID) {
			continue
		}
		var id struct {
			KeyID  []byte          `asn1:"optional,tag:0"`
			Issuer []asn1.RawValue `asn1:"optional,tag:1"`
			Serial *big.Int        `asn1:"optional,tag:2"`
		}
		if rest, err := asn1.Unmarshal(e.Value, &id); err == nil && len(rest) == 0 && len(id.Issuer) == 1 && id.Issuer[0].Class == asn1.ClassContextSpecific && id.Issuer[0].Tag == 4 {
			return id.Issuer[0].Bytes // the directoryName
		}
	}
	return nil
}
