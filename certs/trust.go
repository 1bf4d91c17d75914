package certs

import (
	"crypto/x509"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"github.com/drawbridge-gateway/drawbridge/certs/keyfile"
	"github.com/drawbridge-gateway/drawbridge/certs/safetext"
)

// A TrustBundle is a set of trust anchors. Each certificate is an anchor by
// itself: a root, an intermediate whose root is not in the bundle, or a
// self-signed server certificate.
type TrustBundle struct {
	certs    []*x509.Certificate        // without duplicates, in the order of the text
	pool     *x509.CertPool             // contains certs; shared by all verifiers that use only this bundle
	crls     *crlSet                    // nil: revocation is not checked
	repeated map[*x509.Certificate]bool // certificates that the text contains more than once

	uses atomic.Pointer[map[string]*anchorUse] // the uses by the DER of the certificate
}

func newTrustBundle(certs []*x509.Certificate) *TrustBundle {
	b := &TrustBundle{certs: certs}
	uses := newUses(certs)
	b.uses.Store(&uses)
	b.pool = pool([]*TrustBundle{b})
	return b
}

// A TrustSource is the input of NewTrustBundle.
type TrustSource struct {
	// Field is the Fault.Field of a fault in Certificates, such as "pem" or "file".
	Field string
	// Certificates are in PEM or DER.
	Certificates []byte
	// CRLs are revocation lists. If there are any, every certificate of a chain
	// except its anchor needs a current list from its issuer.
	CRLs []CRLSource
}

// NewTrustBundle parses a bundle and its revocation lists. The error is
// Faults, with the fields of the source. Certificates are checked as in
// ParseTrustBundle. An unusable list is a fault, because ignoring it would
// silently revoke nothing. An outdated list is accepted, because its successor
// may still be in distribution; until it arrives, certificates that need it are rejected.
func NewTrustBundle(s TrustSource) (*TrustBundle, error) {
	var bad Faults
	b, err := parseTrustBundle(s.Certificates, time.Now())
	if err != nil {
		for _, f := range err.(Faults) {
			bad.add(s.Field+f.Field, "%s", f.Problem)
		}
	}
	crls := parseCRLSources(&bad, s.CRLs)
	if err := bad.err(); err != nil {
		return nil, err
	}
	b.crls = crls
	return b, nil
}

// parseCRLSources returns nil if there are no sources.
func parseCRLSources(bad *Faults, sources []CRLSource) *crlSet {
	if len(sources) == 0 {
		return nil
	}
	var all []*crl
	for _, s := range sources {
		lists, err := parseCRLs(s.Data)
		if err != nil {
			bad.add(s.Field, "%v", err)
		}
		if all = append(all, lists...); len(all) > maxCRLs {
			bad.add(s.Field, "is one too many: a bundle holds at most %d revocation lists", maxCRLs)
			return nil
		}
	}
	return newCRLSet(all)
}

// ParseTrustBundle parses a bundle in PEM or DER. The error is Faults; the
// field is the whole bundle ("") or the index of a certificate ("[2]", counted
// from zero).
//
// Every certificate must be a CA or self-signed. A self-signed certificate that
// is not a CA trusts a single server and vouches only for itself. A leaf that a
// CA issued is rejected, because users mistake it for the CA's certificate. An
// expired certificate is accepted with a warning, unless all have expired: such
// a bundle could not verify any peer.
func ParseTrustBundle(text []byte) (*TrustBundle, error) {
	return parseTrustBundle(text, time.Now())
}

func parseTrustBundle(text []byte, now time.Time) (*TrustBundle, error) {
	var bad Faults
	certs, err := keyfile.ParseCertificates(text, keyfile.MaxTrustedCAs)
	if err != nil {
		bad.add("", "%v", err)
		return nil, bad
	}
	var unique []*x509.Certificate
	seen := make(map[string]*x509.Certificate)
	repeated := make(map[*x509.Certificate]bool)
	live := false
	for i, c := range certs {
		if !c.IsCA && !isSelfSigned(c) {
			bad.add(fmt.Sprintf("[%d]", i), "%s is not a CA certificate: want the certificate of its issuer, %q",
				describeName(c), safetext.Printable(nameText(c.RawIssuer, c.Issuer), 150))
			continue
		}
		live = live || !now.After(c.NotAfter)
		if first := seen[string(c.Raw)]; first != nil {
			repeated[first] = true
			continue
		}
		seen[string(c.Raw)] = c
		unique = append(unique, c)
	}
	if len(bad) == 0 && !live {
		last := slices.MaxFunc(certs, func(a, b *x509.Certificate) int { return a.NotAfter.Compare(b.NotAfter) })
		bad.add("", "every certificate in it has expired, the last on %s: it could verify no peer", last.NotAfter.UTC().Format(time.DateOnly))
	}
	if len(bad) > 0 {
		return nil, bad
	}
	b := newTrustBundle(unique)
	b.repeated = repeated
	return b, nil
}

// isSelfSigned reports whether a certificate's own key signed it.
// x509.Certificate.CheckSignatureFrom would require a CA.
func isSelfSigned(c *x509.Certificate) bool {
	return isSelfIssued(c) && c.CheckSignature(c.SignatureAlgorithm, c.RawTBSCertificate, c.Signature) == nil
}

// Infos describes each certificate, in the order of the text.
func (b *TrustBundle) Infos() []Info {
	infos := make([]Info, len(b.certs))
	for i, c := range b.certs {
		infos[i] = Describe(b.certs[i : i+1])
		switch {
		case !isCA(c):
			infos[i].warn(FindingNotACA, "it is not a CA: it verifies only itself")
		case c.KeyUsage != 0 && c.KeyUsage&x509.KeyUsageCertSign == 0:
			infos[i].warn(FindingCannotSign, "it may not sign certificates: its key usage lacks keyCertSign, so no certificate it issued is accepted")
		case c.PublicKeyAlgorithm == x509.UnknownPublicKeyAlgorithm:
			infos[i].warn(FindingCannotSign, "its key is of a type that is not supported (only RSA, ECDSA and Ed25519 are), so no certificate it issued is accepted")
		}
		if b.repeated[c] {
			infos[i].warn(FindingDuplicate, "the bundle holds it more than once")
		}
	}
	return infos
}

// Count returns how many certificates there are.
func (b *TrustBundle) Count() int { return len(b.certs) }

// Certificates returns the certificates, in the order of the text. They must not
// be modified.
func (b *TrustBundle) Certificates() []*x509.Certificate { return slices.Clone(b.certs) }

// Ends returns the time at which each certificate expires.
func (b *TrustBundle) Ends() []time.Time {
	ends := make([]time.Time, len(b.certs))
	for i, c := range b.certs {
		ends[i] = c.NotAfter
	}
	return ends
}

// CRLEnds returns the time of each revocation list's next update.
func (b *TrustBundle) CRLEnds() []time.Time {
	if b.crls == nil {
		return nil
	}
	ends := make([]time.Time, len(b.crls.lists))
	for i, l := range b.crls.lists {
		ends[i] = l.list.NextUpdate
	}
	return ends
}

// CRLInfos describes each revocation list as of now, in the order of the
// sources.
func (b *TrustBundle) CRLInfos() []CRLInfo {
	if b.crls == nil {
		return nil
	}
	now := time.Now()
	infos := make([]CRLInfo, len(b.crls.lists))
	for i, l := range b.crls.lists {
		infos[i] = l.info(b.certs, now)
	}
	return infos
}

// holds reports whether the bundle contains a certificate.
func (b *TrustBundle) holds(c *x509.Certificate) bool { return slices.ContainsFunc(b.certs, c.Equal) }

// Equal reports whether b and other hold the same certificates and revocation
// lists, in any order. A nil bundle equals only a nil bundle.
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
	return b.crls.equal(other.crls)
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
