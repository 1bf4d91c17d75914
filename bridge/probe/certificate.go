package probe

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/drawbridge-gateway/drawbridge/certs"
)

// reach is the number of certificates of a chain that are inspected.
const reach = maxShown

// top returns the last certificate that issuer names connect to the leaf. It
// does not check signatures, because an endpoint could send thousands.
func top(chain []*x509.Certificate) *x509.Certificate {
	chain = chain[:min(len(chain), reach)]
	last := chain[0]
	for range chain {
		i := slices.IndexFunc(chain, func(c *x509.Certificate) bool {
			return c != last && string(c.RawSubject) == string(last.RawIssuer)
		})
		if i < 0 || selfIssued(last) {
			break
		}
		last = chain[i]
	}
	return last
}

func selfIssued(c *x509.Certificate) bool { return string(c.RawSubject) == string(c.RawIssuer) }

// explainUnknownCA explains where the chain ends and what is missing: an
// intermediate that the endpoint should send, or a trusted CA.
func (t *trial) explainUnknownCA() diagnosis {
	leaf := t.leaf()
	if leaf == nil {
		return newDiagnosis("the chain of %s does not lead to a trusted CA: %s", t.where(), t.detail())
	}
	last := top(t.seen.Chain)
	var d diagnosis
	fault := t.chainFault()
	switch {
	case fault != nil && fault.Detail != "":
		d = t.explainIssuer(fault)
	case selfIssued(leaf):
		d = newDiagnosis("%s presented the certificate %s, which is self-signed and not trusted", t.where(), subject(leaf)).
			suggest(about("tls.trust_bundles", "if it is the upstream's, put it in a trust bundle and name that in tls.trust_bundles"))
	case selfIssued(last):
		d = newDiagnosis("the chain of %s leads to the root %s, which is not trusted", subject(leaf), subject(last)).
			suggest(about("tls.trust_bundles", "if you trust it, put the certificate of %s in a trust bundle and name that in tls.trust_bundles", subject(last)))
	default:
		d = newDiagnosis("%s presented %s, whose chain ends at %s: it did not send the certificate of the issuer, %s, which is not trusted either",
			t.where(), certificateCount(len(t.seen.Chain)), subject(last), issuer(last)).
			advise("if %s is an intermediate, have the upstream send its certificate after its own; if it is a CA that you trust, put its certificate in a trust bundle and name that in tls.trust_bundles", issuer(last))
		if len(last.IssuingCertificateURL) > 0 {
			d.facts += " (available from " + escape(last.IssuingCertificateURL[0]) + ")"
		}
	}
	if name := t.knownTo(); name != "" {
		d.facts += fmt.Sprintf("; the trust bundle %q trusts it", name)
		d = d.suggest(setToList("tls.trust_bundles", name))
	}
	return d
}

// chainFault returns the fault that verification found in the chain, or nil.
func (t *trial) chainFault() *certs.ChainFault {
	if v, ok := errors.AsType[*certs.VerifyError](t.err); ok {
		return v.Fault
	}
	return nil
}

// explainIssuer explains why the chain from a certificate to its issuer is
// invalid.
func (t *trial) explainIssuer(f *certs.ChainFault) diagnosis {
	d := newDiagnosis("%s", f.Detail)
	switch f.Kind {
	case certs.IssuerNotCA:
		return d.advise("have the certificate %s issued by a CA, and put that CA's certificate in a trust bundle named in tls.trust_bundles", subject(f.Cert))
	case certs.IssuerMayNotSign:
		return d.advise("have the CA %s reissued with the key usage keyCertSign, and put the new certificate in the trust bundle named in tls.trust_bundles", subject(f.Issuer))
	case certs.IssuerKeyUnsupported:
		return d.advise("have the certificate %s issued by a CA with an RSA (rsaEncryption), ECDSA or Ed25519 key", subject(f.Cert))
	case certs.SignatureWeak, certs.SignatureUnsupported:
		return d.advise("have the certificate %s reissued with a common signature algorithm, such as ECDSA or RSA with SHA-256", subject(f.Cert))
	}
	return d.advise("if the CA has a new key, put its new certificate in the trust bundle named in tls.trust_bundles")
}

func certificateCount(n int) string {
	if n == 1 {
		return "one certificate"
	}
	return fmt.Sprintf("%d certificates", n)
}

// maxTried bounds the number of bundles against which a chain is verified,
// because an endpoint chooses the cost of checking its signatures.
const maxTried = 10

// knownTo returns the name of the first known bundle that the chain leads to.
func (t *trial) knownTo() string {
	issuers := map[string]bool{}
	for _, c := range t.seen.Chain[:min(len(t.seen.Chain), reach)] {
		issuers[string(c.RawIssuer)], issuers[string(c.RawSubject)] = true, true
	}
	tried := 0
	for _, b := range t.target.Known {
		mayIssue := func(c *x509.Certificate) bool { return issuers[string(c.RawSubject)] }
		if tried == maxTried || slices.Contains(t.options.Trust, b.Trust) || !slices.ContainsFunc(b.Trust.Certificates(), mayIssue) {
			continue
		}
		if tried++; len(t.chains(b.Trust)) > 0 {
			return b.Name
		}
	}
	return ""
}

// chains returns the currently valid chains of a server certificate to trust.
func (t *trial) chains(trust ...*certs.TrustBundle) [][]*x509.Certificate {
	presented := t.seen.Chain[:min(len(t.seen.Chain), reach)]
	o := x509.VerifyOptions{Roots: x509.NewCertPool(), Intermediates: x509.NewCertPool(), CurrentTime: t.now()}
	for _, b := range trust {
		for _, c := range b.Certificates() {
			o.Roots.AddCert(c)
		}
	}
	for _, c := range presented[1:] {
		o.Intermediates.AddCert(c)
	}
	found, err := presented[0].Verify(o)
	if err != nil {
		return nil
	}
	return slices.DeleteFunc(found, func(chain []*x509.Certificate) bool { return !certs.IssuedByCAs(chain) })
}

// skew is the largest plausible clock error: a wrong time zone.
const skew = 25 * time.Hour

// explainValidity compares the validity with the clock, and suggests which of
// the two is wrong.
func (t *trial) explainValidity() diagnosis {
	now := t.now()
	var bad *x509.Certificate
	var presented []*x509.Certificate
	if t.seen != nil {
		presented = t.seen.Chain[:min(len(t.seen.Chain), reach)]
	}
	early := t.reason == certs.ReasonNotYetValid
	outside := func(c *x509.Certificate) bool {
		if early {
			return now.Before(c.NotBefore)
		}
		return now.After(c.NotAfter)
	}
	for _, c := range presented {
		if outside(c) {
			bad = c
			break
		}
	}
	// If all anchors are equally out of date, this machine's clock is wrong. One
	// expired anchor among many proves nothing, because bundles keep old CAs.
	var anchors []*x509.Certificate
	for _, b := range t.options.Trust {
		anchors = append(anchors, b.Certificates()...)
	}
	ours := len(anchors) > 0 && !slices.ContainsFunc(anchors, func(c *x509.Certificate) bool { return !outside(c) })
	if bad == nil {
		return newDiagnosis("%s (this machine's clock says %s)", t.detail(), stamp(now)).advise("renew the CA's certificate in the trust bundle named in tls.trust_bundles")
	}
	subjectName := subject(bad)
	if bad == presented[0] {
		subjectName += " of " + t.where()
	}
	if early {
		ahead := bad.NotBefore.Sub(now)
		d := newDiagnosis("the certificate %s is not valid before %s, which is in %s by this machine's clock (%s)", subjectName, stamp(bad.NotBefore), span(ahead), stamp(now))
		if ours || ahead < skew {
			d.facts += "; that clock may be slow"
			return d.advise("set this machine's clock right if it is slow; otherwise wait, or have the upstream present a certificate that is valid now")
		}
		return d.advise("have the upstream present a certificate that is valid now")
	}
	ago := now.Sub(bad.NotAfter)
	d := newDiagnosis("the certificate %s expired on %s, %s ago by this machine's clock (%s)", subjectName, stamp(bad.NotAfter), span(ago), stamp(now))
	if ours || ago < skew {
		d.facts += "; that clock may be fast"
		return d.advise("renew the certificate, or set this machine's clock right if it is fast")
	}
	if bad != presented[0] {
		return d.advise("have the upstream send the renewed certificate of its intermediate %s", subject(bad))
	}
	return d.advise("renew the certificate of the upstream")
}

// explainChain explains other faults of the certificates.
func (t *trial) explainChain() diagnosis {
	d := newDiagnosis("%s", t.detail())
	leaf := t.leaf()
	if leaf == nil {
		return d
	}
	switch t.reason {
	case certs.ReasonDepthExceeded:
		if found := t.chains(t.options.Trust...); len(found) > 0 {
			shortest := slices.MinFunc(found, func(a, b []*x509.Certificate) int { return len(a) - len(b) })
			return d.suggest(setTo("tls.verify_depth", strconv.Itoa(max(len(shortest)-2, 0))).and(", or remove it"))
		}
		return d.suggest(about("tls.verify_depth", "set tls.verify_depth to a higher value, or remove it"))
	case certs.ReasonWrongKeyUsage:
		if f := t.chainFault(); f != nil && f.Kind == certs.UsageExcluded && f.Cert != leaf {
			return d.advise("have the certificate %s issued by a CA that may issue for serverAuth", subject(leaf))
		}
		return d.advise("have the certificate %s issued again with the extended key usage serverAuth", subject(leaf))
	case certs.ReasonRevoked:
		return d.advise("have the upstream present a chain without revoked certificates")
	case certs.ReasonCRLExpired:
		return d.advise("put the CA's current revocation list in crls of the trust bundle named in tls.trust_bundles")
	case certs.ReasonPinMismatch:
		s := about("tls.spki_pins", "if the upstream has a new key, add it to tls.spki_pins: %s", values(pin(leaf)))
		s.Value = values(append(pins(t.options.Pins), pin(leaf))...)
		return d.suggest(s)
	}
	if f := t.chainFault(); f != nil {
		switch {
		case f.Kind == certs.NameExcluded:
			return d.advise("have the certificate %s issued for names that this CA permits, or by another CA", subject(leaf))
		case f.Kind == certs.ExtensionUnknown && f.Cert != leaf:
			return d.advise("have the certificate %s issued by a CA without that extension", subject(leaf))
		case f.Kind == certs.ExtensionUnknown:
			return d.advise("have the certificate %s reissued without that extension, or with the extension not critical", subject(leaf))
		}
	}
	return d.advise("have the upstream present a certificate that is well-formed and correctly signed")
}

// pins returns pins as the API writes them.
func pins(all [][sha256.Size]byte) []string {
	var out []string
	for _, p := range all {
		out = append(out, base64.StdEncoding.EncodeToString(p[:]))
	}
	return out
}

// pin returns the pin of a certificate's key (RFC 7469, section 2.4).
func pin(c *x509.Certificate) string {
	sum := sha256.Sum256(c.RawSubjectPublicKeyInfo)
	return base64.StdEncoding.EncodeToString(sum[:])
}
