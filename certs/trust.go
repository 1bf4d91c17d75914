package certs

import (
	"crypto/x509"
	"fmt"
	"slices"
	"time"
)

// A TrustBundle is a set of certificates that a peer's chain may lead to. Each
// is a trust anchor by itself: a root, an intermediate whose root is not in the
// bundle, or a self-signed server certificate.
type TrustBundle struct {
	certs []*x509.Certificate // without duplicates, in the order of the text
	pool  *x509.CertPool      // of certs; shared by all who verify against this bundle alone
}

func newTrustBundle(certs []*x509.Certificate) *TrustBundle {
	b := &TrustBundle{certs: certs}
	b.pool = pool([]*TrustBundle{b})
	return b
}

// ParseTrustBundle parses a bundle in PEM. The error is Faults, with the whole
// ("") or the number of a certificate ("[2]", counted from zero) as field.
//
// Every certificate must be a CA's or be self-signed. The latter is how a
// single server with a self-signed certificate is trusted; such a certificate
// vouches for nothing but itself. A leaf that a CA issued is refused: nearly
// always it was taken for the CA's. One that has expired is accepted with a
// warning, unless all have: such a bundle could verify nothing.
func ParseTrustBundle(text []byte) (*TrustBundle, error) {
	return parseTrustBundle(text, time.Now())
}

func parseTrustBundle(text []byte, now time.Time) (*TrustBundle, error) {
	var bad Faults
	certs, err := parseCertificates(text, maxTrustedCAs)
	if err != nil {
		bad.add("", "%v", err)
		return nil, bad
	}
	var unique []*x509.Certificate
	seen := make(map[string]bool)
	live := false
	for i, c := range certs {
		if !c.IsCA && !isSelfSigned(c) {
			bad.add(fmt.Sprintf("[%d]", i), "%s is not a CA certificate: want that of its issuer, %q",
				describeName(c), printable(nameText(c.RawIssuer, c.Issuer), 150))
			continue
		}
		live = live || !now.After(c.NotAfter)
		if !seen[string(c.Raw)] {
			seen[string(c.Raw)] = true
			unique = append(unique, c)
		}
	}
	if len(bad) == 0 && !live {
		last := slices.MaxFunc(certs, func(a, b *x509.Certificate) int { return a.NotAfter.Compare(b.NotAfter) })
		bad.add("", "every certificate in it has expired, the last on %s: it could verify no peer", last.NotAfter.UTC().Format(time.DateOnly))
	}
	if len(bad) > 0 {
		return nil, bad
	}
	return newTrustBundle(unique), nil
}

// isSelfSigned reports whether a certificate's own key signed it. The check of
// x509.Certificate.CheckSignatureFrom would ask for a CA.
func isSelfSigned(c *x509.Certificate) bool {
	return isSelfIssued(c) && c.CheckSignature(c.SignatureAlgorithm, c.RawTBSCertificate, c.Signature) == nil
}

// Infos describes each certificate, in the order of the text.
func (b *TrustBundle) Infos() []Info {
	infos := make([]Info, len(b.certs))
	for i, c := range b.certs {
		infos[i] = Describe(b.certs[i : i+1])
		if !c.IsCA {
			infos[i].Warnings = append(infos[i].Warnings, "it is not a CA: it vouches for nothing but itself")
		}
	}
	return infos
}

// Count returns how many certificates there are.
func (b *TrustBundle) Count() int { return len(b.certs) }

// Equal reports whether both hold the same certificates, in whatever order. A
// nil bundle equals only a nil bundle.
func (b *TrustBundle) Equal(other *TrustBundle) bool {
	if b == nil || other == nil {
		return b == other
	}
	if len(b.certs) != len(other.certs) {
		return false
	}
	mine := make(map[string]bool, len(b.certs))
	for _, c := range b.certs {
		mine[string(c.Raw)] = true
	}
	for _, c := range other.certs {
		if !mine[string(c.Raw)] {
			return false
		}
	}
	return true
}

// pool returns the union of bundles.
func pool(bundles []*TrustBundle) *x509.CertPool {
	if len(bundles) == 1 && bundles[0].pool != nil {
		return bundles[0].pool
	}
	p := x509.NewCertPool()
	for _, b := range bundles {
		for _, c := range b.certs {
			p.AddCert(c)
		}
	}
	return p
}
