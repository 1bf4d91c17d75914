package certs

import (
	"crypto/x509"
	"errors"
	"fmt"
	"slices"

	"github.com/drawbridge-gateway/drawbridge/certs/keyfile"
	"github.com/drawbridge-gateway/drawbridge/certs/safetext"
)

// A ChainFaultKind names the reason why a chain stops at one certificate.
type ChainFaultKind int

// The kinds of faults.
const (
	// IssuerUnknown: no certificate of the issuer was presented or is trusted.
	IssuerUnknown ChainFaultKind = iota
	// IssuerNotCA: the issuer is trusted, but its basicConstraints do not make it
	// a CA.
	IssuerNotCA
	// IssuerMayNotSign: the issuer's key usage lacks keyCertSign.
	IssuerMayNotSign
	// IssuerKeyUnsupported: the issuer's key is of a type that this program
	// cannot use, such as RSASSA-PSS or Ed448.
	IssuerKeyUnsupported
	// SignatureWeak: the certificate is signed with MD5 or SHA-1.
	SignatureWeak
	// SignatureUnsupported: the certificate is signed with an algorithm, or
	// with parameters, that this program cannot check.
	SignatureUnsupported
	// SignatureWrong: a CA of the issuer's name is known, and its key did not
	// sign the certificate.
	SignatureWrong
	// UsageExcluded: the extended key usage does not allow this use.
	UsageExcluded
	// NameExcluded: a CA's name constraints exclude a name of the leaf.
	NameExcluded
	// ExtensionUnknown: a critical extension is not supported.
	ExtensionUnknown
	// OrderWrong: the presented chain begins with a CA, and Cert, which has the
	// name to verify, follows later.
	OrderWrong
)

// A ChainFault explains a VerifyError as far as the facts are known. No verdict
// depends on it.
type ChainFault struct {
	Kind ChainFaultKind
	// Cert is the certificate that stops the chain.
	Cert *x509.Certificate
	// Issuer is the certificate that issued Cert, or nil if unknown.
	Issuer *x509.Certificate
	// Trusted reports that Issuer is a trust anchor.
	Trusted bool
	// Detail states the fault in one clause. It is bounded and escaped.
	Detail string
}

// isCA reports whether basicConstraints allow a certificate to issue others
// (RFC 5280, section 4.2.1.9). crypto/x509 also accepts version 1 trust
// anchors, which have no extensions: the key of a pinned server certificate
// could then issue certificates for any name.
func isCA(c *x509.Certificate) bool { return c.BasicConstraintsValid && c.IsCA }

// IssuedByCAs reports whether every certificate of a chain except the first is
// a CA by its basicConstraints. A chain from crypto/x509 that fails this check
// must not be trusted: see isCA.
func IssuedByCAs(chain []*x509.Certificate) bool {
	return !slices.ContainsFunc(chain[1:], func(c *x509.Certificate) bool { return !isCA(c) })
}

// maxFaultChecks bounds the signatures checked to explain a failure, because a
// hostile peer chooses the number of certificates and the size of their keys.
const maxFaultChecks = 8

// issuerFault returns the reason why no chain leads to a trust anchor. It
// follows issuer names from the leaf, and claims only what it has verified.
func issuerFault(presented []*x509.Certificate, trust []*TrustBundle) *ChainFault {
	checks := 0
	current := presented[0]
	for range min(len(presented), keyfile.MaxChain) {
		var found *ChainFault
		var next *x509.Certificate
		for _, candidate := range issuersOf(current, presented, trust) {
			if checks == maxFaultChecks {
				break
			}
			checks++
			fault := linkFault(current, candidate.cert, candidate.trusted)
			if fault == nil {
				if !candidate.trusted {
					next = candidate.cert
				}
				continue
			}
			// A wrong signature is the weakest evidence: another CA may have the same
			// name.
			if found == nil || found.Kind == SignatureWrong && fault.Kind != SignatureWrong {
				found = fault
			}
		}
		switch {
		case next != nil:
			current = next
		case found != nil:
			return found
		default:
			return &ChainFault{Kind: IssuerUnknown, Cert: current}
		}
	}
	return &ChainFault{Kind: IssuerUnknown, Cert: current}
}

type issuerCandidate struct {
	cert    *x509.Certificate
	trusted bool
}

// issuersOf returns the certificates that carry the issuer's name, trust anchors
// first. A self-signed certificate is not its own issuer.
func issuersOf(c *x509.Certificate, presented []*x509.Certificate, trust []*TrustBundle) []issuerCandidate {
	var found []issuerCandidate
	named := func(o *x509.Certificate) bool { return string(o.RawSubject) == string(c.RawIssuer) && !o.Equal(c) }
	for _, b := range trust {
		for _, o := range b.certs {
			if named(o) {
				found = append(found, issuerCandidate{o, true})
			}
		}
	}
	if isSelfIssued(c) {
		return found
	}
	for _, o := range presented[1:min(len(presented), maxRefused)] {
		if named(o) {
			found = append(found, issuerCandidate{o, false})
		}
	}
	return found
}

// linkFault returns the reason why issuer does not vouch for c, or nil if it
// does.
func linkFault(c, issuer *x509.Certificate, trusted bool) *ChainFault {
	f := &ChainFault{Cert: c, Issuer: issuer, Trusted: trusted}
	by := fmt.Sprintf("%s was issued by %s, ", describeName(c), describeName(issuer))
	if trusted {
		by += "which is trusted, but "
	} else {
		by += "and "
	}
	if issuer.PublicKeyAlgorithm == x509.UnknownPublicKeyAlgorithm {
		f.Kind, f.Detail = IssuerKeyUnsupported, by+"the key of that CA is of a type that is not supported (only RSA, ECDSA and Ed25519 are)"
		return f
	}
	var insecure x509.InsecureAlgorithmError
	err := issuer.CheckSignature(c.SignatureAlgorithm, c.RawTBSCertificate, c.Signature)
	switch {
	case errors.As(err, &insecure):
		f.Kind, f.Detail = SignatureWeak, by+fmt.Sprintf("the certificate is signed with %s, which is too weak to be accepted", c.SignatureAlgorithm)
	case c.SignatureAlgorithm == x509.UnknownSignatureAlgorithm:
		f.Kind, f.Detail = SignatureUnsupported, by+"the certificate is signed with an algorithm, or with parameters such as an unusual salt length, that are not supported"
	case err != nil:
		which := "was presented"
		if trusted {
			which = "is trusted"
		}
		f.Kind, f.Detail = SignatureWrong, fmt.Sprintf("%s names %s as its issuer; a CA of that name %s, but its key has not signed it", describeName(c), describeName(issuer), which)
	case !isCA(issuer):
		f.Kind, f.Detail = IssuerNotCA, by+"that certificate is not a CA (its basicConstraints do not say so), so it can verify only itself"
	case issuer.KeyUsage != 0 && issuer.KeyUsage&x509.KeyUsageCertSign == 0:
		f.Kind, f.Detail = IssuerMayNotSign, by+"that CA may not sign certificates: its key usage lacks keyCertSign"
	case isWeakSignature(c.SignatureAlgorithm): // CheckSignature still checks SHA-1
		f.Kind, f.Detail = SignatureWeak, by+fmt.Sprintf("the certificate is signed with %s, which is too weak to be accepted", c.SignatureAlgorithm)
	default:
		return nil
	}
	return f
}

// byName returns the leaf and its ancestors by issuer name alone: presented
// certificates first, then a trust anchor.
func byName(presented []*x509.Certificate, trust []*TrustBundle) []*x509.Certificate {
	path := []*x509.Certificate{presented[0]}
	for len(path) < keyfile.MaxChain {
		last := path[len(path)-1]
		candidates := issuersOf(last, presented, trust)
		i := slices.IndexFunc(candidates, func(c issuerCandidate) bool { return !slices.Contains(path, c.cert) })
		if i < 0 {
			break
		}
		path = append(path, candidates[i].cert)
		if candidates[i].trusted {
			break
		}
	}
	return path
}

// usageFault returns the certificate of the chain whose extended key usages
// exclude this use.
func usageFault(path []*x509.Certificate, usage x509.ExtKeyUsage) *ChainFault {
	// crypto/x509 checks the usage of every certificate in the chain, including
	// the anchor.
	for i, c := range path {
		if len(c.ExtKeyUsage) == 0 && len(c.UnknownExtKeyUsage) == 0 {
			continue
		}
		if slices.Contains(c.ExtKeyUsage, usage) || slices.Contains(c.ExtKeyUsage, x509.ExtKeyUsageAny) {
			continue
		}
		what := "the certificate "
		if i > 0 {
			what = "the CA "
		}
		f := &ChainFault{Kind: UsageExcluded, Cert: c}
		f.Detail = fmt.Sprintf("%s%s may not be used for %s", what, describeName(c), extKeyUsageNames[usage])
		if uses := usageList(c); uses != "" {
			f.Detail += ", only for " + uses
		}
		if i > 0 {
			f.Detail += fmt.Sprintf("; that restricts everything it issues, such as %s", describeName(path[0]))
		}
		return f
	}
	return nil
}

// constraintFault returns the CA whose name constraints exclude the leaf.
// detail is the text of crypto/x509 about the name.
func constraintFault(path []*x509.Certificate, detail string) *ChainFault {
	for _, c := range path[1:] {
		if !hasNameConstraints(c) {
			continue
		}
		return &ChainFault{Kind: NameExcluded, Cert: c, Detail: fmt.Sprintf(
			"the CA %s excludes a name of %s by its name constraints: %s", describeName(c), describeName(path[0]), safetext.Printable(detail, 200))}
	}
	return nil
}

func hasNameConstraints(c *x509.Certificate) bool {
	for _, list := range [][]string{
		c.PermittedDNSDomains, c.ExcludedDNSDomains, c.PermittedEmailAddresses, c.ExcludedEmailAddresses,
		c.PermittedURIDomains, c.ExcludedURIDomains,
	} {
		if len(list) > 0 {
			return true
		}
	}
	return len(c.PermittedIPRanges) > 0 || len(c.ExcludedIPRanges) > 0
}

// extensionNames maps the object identifiers of extensions that crypto/x509
// does not support to the names that other programs use.
var extensionNames = map[string]string{
	"2.5.29.30": "name constraints of a kind that is not supported, such as directory names",
	"2.5.29.33": "policy mappings",
	"2.5.29.36": "policy constraints",
	"2.5.29.54": "inhibit any policy",
}

// extensionFault returns the certificate with a critical extension that is not
// supported (RFC 5280, section 4.2).
func extensionFault(path []*x509.Certificate) *ChainFault {
	for i, c := range path {
		if len(c.UnhandledCriticalExtensions) == 0 {
			continue
		}
		what := "the certificate "
		if i > 0 {
			what = "the CA "
		}
		id := c.UnhandledCriticalExtensions[0].String()
		f := &ChainFault{Kind: ExtensionUnknown, Cert: c}
		f.Detail = fmt.Sprintf("%s%s has the critical extension %s, which is not supported", what, describeName(c), safetext.Printable(id, 80))
		if name := extensionNames[id]; name != "" {
			f.Detail += " (" + name + ")"
		}
		return f
	}
	return nil
}
