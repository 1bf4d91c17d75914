package certs

import (
	"crypto/x509"
	"errors"
	"fmt"
	"strings"
	"time"
)

// A verifier holds what a peer's certificate must satisfy. It is the one path
// by which this package trusts anybody, and it runs on every connection, the
// resumed ones too.
type verifier struct {
	roots *x509.CertPool // never nil: nil would mean the system's to crypto/x509
	usage x509.ExtKeyUsage
	depth *uint32 // intermediates allowed; nil: no limit
	name  string  // DNS name or IP address; empty: not checked
	now   func() time.Time
}

// verify returns every check that certs fails, the gravest first; none means
// that the peer is trusted.
func (v *verifier) verify(certs []*x509.Certificate) []*VerifyError {
	if len(certs) == 0 {
		return []*VerifyError{{Reason: ReasonBadCertificate, Detail: "the peer presented no certificate"}}
	}
	var failures []*VerifyError
	if e := v.verifyChain(certs); e != nil {
		failures = append(failures, e)
	}
	if e := v.verifyName(certs[0]); e != nil {
		failures = append(failures, e)
	}
	return failures
}

// verifyChain looks for a chain from the leaf to a trust anchor that is valid
// now, for this use and within the depth. Any one will do: a peer that is
// cross-signed may have a short chain and a long one.
func (v *verifier) verifyChain(certs []*x509.Certificate) *VerifyError {
	leaf := certs[0]
	opts := x509.VerifyOptions{
		Roots:         v.roots,
		Intermediates: x509.NewCertPool(),
		CurrentTime:   v.now(),
		KeyUsages:     []x509.ExtKeyUsage{v.usage},
	}
	for _, c := range certs[1:] {
		opts.Intermediates.AddCert(c)
	}
	chains, err := leaf.Verify(opts)
	if err != nil {
		return v.chainError(certs, opts, err)
	}
	if v.depth == nil {
		return nil
	}
	shortest := len(chains[0])
	for _, chain := range chains {
		shortest = min(shortest, len(chain))
	}
	// As OpenSSL counts: the leaf and the trust anchor are free. A leaf that
	// is its own anchor makes a chain of one.
	if between := max(shortest-2, 0); uint32(between) > *v.depth {
		return &VerifyError{
			Reason: ReasonDepthExceeded,
			Detail: fmt.Sprintf("the chain of %s has %s, and the verify depth allows %d", describeName(leaf), count(between, "intermediate"), *v.depth),
		}
	}
	return nil
}

// chainError says why no chain was found.
func (v *verifier) chainError(certs []*x509.Certificate, opts x509.VerifyOptions, err error) *VerifyError {
	leaf := certs[0]
	reason := verifyReason(err)
	e := &VerifyError{Reason: reason, Err: err}
	switch reason {
	case ReasonUnknownCA:
		e.Detail = fmt.Sprintf("the chain of %s leads to no CA that is trusted: it was issued by %q", describeName(leaf), printable(lastIssuer(certs), 150))
	case ReasonExpired, ReasonNotYetValid:
		c := leaf
		if invalid, ok := errors.AsType[x509.CertificateInvalidError](err); ok {
			c = invalid.Cert
		}
		e.Detail = validityDetail("the certificate "+describeName(c), c, opts.CurrentTime)
	case ReasonWrongKeyUsage:
		e.Detail = fmt.Sprintf("the certificate %s may not be used for %s", describeName(leaf), extKeyUsageNames[v.usage])
		if uses := usageList(leaf); uses != "" {
			e.Detail += ", only for " + uses
		}
	default:
		e.Detail = fmt.Sprintf("the certificate %s does not verify: %s", describeName(leaf), printable(err.Error(), 200))
	}
	return e
}

func (v *verifier) verifyName(leaf *x509.Certificate) *VerifyError {
	if v.name == "" {
		return nil
	}
	err := leaf.VerifyHostname(v.name)
	if err == nil {
		return nil
	}
	// Not err's text: it may hold every one of a hostile certificate's names.
	names, total := altNames(leaf, maxNames)
	have := nameList(names)
	if total > len(names) {
		have += fmt.Sprintf(" and %d more", total-len(names))
	}
	return &VerifyError{
		Reason: ReasonNameMismatch,
		Err:    err,
		Detail: fmt.Sprintf("the certificate is for %s, not for %q", have, printable(v.name, 260)),
	}
}

func validityDetail(what string, c *x509.Certificate, now time.Time) string {
	if now.Before(c.NotBefore) {
		return fmt.Sprintf("%s is not valid before %s", what, c.NotBefore.UTC().Format(time.RFC3339))
	}
	return fmt.Sprintf("%s expired on %s", what, c.NotAfter.UTC().Format(time.RFC3339))
}

// lastIssuer returns the issuer that is missing: that of the last certificate
// which can be reached from the leaf by name. Signatures are not looked at: a
// hostile peer could have us check thousands.
func lastIssuer(certs []*x509.Certificate) string {
	last := certs[0]
	for range min(len(certs), maxChain) {
		for _, c := range certs[1:] {
			if c != last && string(c.RawSubject) == string(last.RawIssuer) && !isSelfIssued(last) {
				last = c
				break
			}
		}
	}
	return nameText(last.RawIssuer, last.Issuer)
}

// verifyReason classifies what crypto/x509 returned.
func verifyReason(err error) Reason {
	if invalid, ok := errors.AsType[x509.CertificateInvalidError](err); ok {
		switch invalid.Reason {
		case x509.Expired: // of either end of the validity
			if strings.Contains(invalid.Detail, "is before") {
				return ReasonNotYetValid
			}
			return ReasonExpired
		case x509.IncompatibleUsage, x509.NotAuthorizedToSign:
			return ReasonWrongKeyUsage
		}
		return ReasonBadCertificate
	}
	if _, ok := errors.AsType[x509.UnknownAuthorityError](err); ok {
		return ReasonUnknownCA
	}
	if _, ok := errors.AsType[x509.HostnameError](err); ok {
		return ReasonNameMismatch
	}
	if _, ok := errors.AsType[x509.SystemRootsError](err); ok {
		return ReasonLocalConfig
	}
	return ReasonBadCertificate
}
