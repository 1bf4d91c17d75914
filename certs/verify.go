package certs

import (
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/drawbridge-gateway/drawbridge/certs/safetext"
)

// A verifier holds the requirements for a peer's certificate. Every trust
// decision of this package goes through it, on every connection, including
// resumed ones.
type verifier struct {
	trust           []*TrustBundle
	roots           *x509.CertPool // the pool of trust; never nil, because crypto/x509 would then use the system's roots
	usage           x509.ExtKeyUsage
	allowServerAuth bool       // a chain for serverAuth passes too; used with usage clientAuth
	depth           *uint32    // the allowed number of intermediates; nil: no limit
	sans            []SAN      // at least one must match; nil: the name given to verify
	pins            [][32]byte // at least one must be in the chain; nil: any key
	anyName         bool       // without sans, any name passes; used for clients
	now             func() time.Time

	verified verified // chains that passed
}

var errNoCertificate = &VerifyError{Reason: ReasonBadCertificate, Detail: "the peer presented no certificate"}

// verify returns every failed check of certs, the most severe first. An empty
// result means that the peer is trusted. The name is a DNS name or an IP
// address.
func (v *verifier) verify(certs []*x509.Certificate, name string) []*VerifyError {
	_, failures := v.check(certs, name)
	return failures
}

// accept is verify in a handshake. It returns the anchor of a peer that passed, and
// records that the anchor was used.
func (v *verifier) accept(certs []*x509.Certificate, name string) (anchor *x509.Certificate, failures []*VerifyError) {
	chain, failures := v.check(certs, name)
	if len(failures) > 0 {
		return nil, failures
	}
	anchor = chain[len(chain)-1]
	for _, b := range v.trust {
		b.note(anchor, v.now())
	}
	return anchor, nil
}

// check is verify, but also returns the chain if it passed.
func (v *verifier) check(certs []*x509.Certificate, name string) (chain []*x509.Certificate, failures []*VerifyError) {
	if len(certs) == 0 {
		return nil, []*VerifyError{errNoCertificate}
	}
	chain, failures = v.verifyChain(certs)
	if e := v.verifyName(certs, name); e != nil {
		failures = append(failures, e)
	}
	return chain, failures
}

// verifyChain looks for a chain from the leaf to a trust anchor that is valid
// now and for this use, within the depth, not revoked and with a pinned key.
// One such chain is enough: a cross-signed peer may have a short and a long
// one. If every chain fails, it returns the failures of the chain with the
// fewest.
func (v *verifier) verifyChain(certs []*x509.Certificate) (valid []*x509.Certificate, failures []*VerifyError) {
	leaf, now, key := certs[0], v.now(), chainKey(certs)
	if known, ok := v.verified.get(key, now); ok {
		return known.chain, nil
	}
	opts := x509.VerifyOptions{
		Roots:         v.roots,
		Intermediates: x509.NewCertPool(),
		CurrentTime:   now,
		KeyUsages:     []x509.ExtKeyUsage{v.usage},
	}
	if v.allowServerAuth {
		opts.KeyUsages = append(opts.KeyUsages, x509.ExtKeyUsageServerAuth)
	}
	for _, c := range certs[1:] {
		opts.Intermediates.AddCert(c)
	}
	chains, err := leaf.Verify(opts)
	if err == nil {
		if chains = slices.DeleteFunc(chains, func(chain []*x509.Certificate) bool { return !IssuedByCAs(chain) }); len(chains) == 0 {
			err = x509.UnknownAuthorityError{Cert: leaf}
		}
	}
	if err != nil {
		return nil, []*VerifyError{v.chainError(certs, opts, err)}
	}
	var least []*VerifyError
	shortest := 0
	for i, chain := range chains {
		failures := v.checkChain(chain, now)
		if len(failures) == 0 {
			v.verified.add(key, passedChain{v.passingPeriod(chain, now), chain})
			return chain, nil
		}
		if i == 0 || len(failures) < len(least) || len(failures) == len(least) && len(chain) < shortest {
			least, shortest = failures, len(chain)
		}
	}
	return nil, least
}

// checkChain returns the faults of a chain whose signatures, times and usages
// are valid.
func (v *verifier) checkChain(chain []*x509.Certificate, now time.Time) (failures []*VerifyError) {
	if e := checkRevocation(v.trust, chain, now); e != nil {
		failures = append(failures, e)
	}
	if e := v.checkDepth(chain); e != nil {
		failures = append(failures, e)
	}
	if e := checkPins(v.pins, chain); e != nil {
		failures = append(failures, e)
	}
	return failures
}

// checkDepth counts as OpenSSL does: the leaf and the trust anchor do not
// count. A leaf that is its own anchor makes a chain of one.
func (v *verifier) checkDepth(chain []*x509.Certificate) *VerifyError {
	between := max(len(chain)-2, 0)
	if v.depth == nil || uint32(between) <= *v.depth {
		return nil
	}
	return &VerifyError{
		Reason: ReasonDepthExceeded,
		Detail: fmt.Sprintf("the chain of %s has %s, and the verify depth allows %d", describeName(chain[0]), safetext.Count(between, "intermediate"), *v.depth),
	}
}

// chainError explains why crypto/x509 found no chain.
func (v *verifier) chainError(certs []*x509.Certificate, opts x509.VerifyOptions, err error) *VerifyError {
	leaf := certs[0]
	reason := verifyReason(err)
	e := &VerifyError{Reason: reason, Err: err}
	switch reason {
	case ReasonUnknownCA:
		e.Fault = issuerFault(certs, v.trust)
		e.Detail = fmt.Sprintf("the chain of %s leads to no trusted CA: ", describeName(leaf))
		if e.Fault.Detail != "" {
			e.Detail += e.Fault.Detail
		} else {
			e.Detail += fmt.Sprintf("it was issued by %q", safetext.Printable(lastIssuer(certs), 150))
		}
	case ReasonExpired, ReasonNotYetValid:
		c := leaf
		if invalid, ok := errors.AsType[x509.CertificateInvalidError](err); ok {
			c = invalid.Cert
		}
		e.Detail = validityDetail("the certificate "+describeName(c), c, opts.CurrentTime)
	case ReasonWrongKeyUsage:
		if e.Fault = usageFault(byName(certs, v.trust), v.usage); e.Fault != nil {
			e.Detail = e.Fault.Detail
		} else {
			e.Detail = fmt.Sprintf("the chain of %s may not be used for %s", describeName(leaf), extKeyUsageNames[v.usage])
		}
	default:
		invalid, ok := errors.AsType[x509.CertificateInvalidError](err)
		_, critical := errors.AsType[x509.UnhandledCriticalExtension](err)
		switch {
		case ok && invalid.Reason == x509.CANotAuthorizedForThisName:
			e.Fault = constraintFault(byName(certs, v.trust), invalid.Detail)
		case critical:
			e.Fault = extensionFault(byName(certs, v.trust))
		}
		if e.Fault != nil {
			e.Detail = e.Fault.Detail
		} else {
			e.Detail = fmt.Sprintf("the certificate %s does not verify: %s", describeName(leaf), safetext.Printable(err.Error(), 200))
		}
	}
	return e
}

func (v *verifier) verifyName(certs []*x509.Certificate, name string) *VerifyError {
	leaf := certs[0]
	e := &VerifyError{Reason: ReasonNameMismatch}
	var want string
	switch {
	case len(v.sans) > 0:
		for _, s := range v.sans {
			if s.Matches(leaf) {
				return nil
			}
		}
		want = sanList(v.sans)
	case name != "":
		// Do not show err's text: it may contain every name of a hostile certificate.
		if e.Err = leaf.VerifyHostname(name); e.Err == nil {
			return nil
		}
		want = `"` + safetext.Printable(name, 260) + `"`
	case v.anyName:
		return nil
	default: // an empty name never means any name
		return &VerifyError{Reason: ReasonLocalConfig, Detail: "there is no name to verify"}
	}
	names, total := altNames(leaf, maxNames)
	have := nameList(names)
	if total > len(names) {
		have += fmt.Sprintf(" and %d more", total-len(names))
	}
	e.Detail = fmt.Sprintf("the certificate is for %s, not for %s", have, want)
	if i := v.misplacedLeaf(certs, name); i > 0 {
		e.Fault = &ChainFault{Kind: OrderWrong, Cert: certs[i], Detail: fmt.Sprintf(
			"the first certificate presented, %s, is a CA, and certificate %d, %s, is for %s: the chain is in the wrong order", describeName(leaf), i+1, describeName(certs[i]), want)}
		e.Detail = e.Fault.Detail
	}
	return e
}

// misplacedLeaf returns the index of the certificate for the name if the peer
// presented a CA first, or 0.
func (v *verifier) misplacedLeaf(certs []*x509.Certificate, name string) int {
	if !isCA(certs[0]) {
		return 0
	}
	for i, c := range certs[:min(len(certs), maxRefused)] {
		switch {
		case i == 0 || isCA(c):
		case len(v.sans) > 0 && slices.ContainsFunc(v.sans, func(s SAN) bool { return s.Matches(c) }),
			len(v.sans) == 0 && name != "" && c.VerifyHostname(name) == nil:
			return i
		}
	}
	return 0
}

// sanList returns the names for a sentence.
func sanList(sans []SAN) string {
	names := make([]string, len(sans))
	for i, s := range sans {
		names[i] = s.String()
	}
	return nameList(names)
}

func validityDetail(subject string, c *x509.Certificate, now time.Time) string {
	if now.Before(c.NotBefore) {
		return fmt.Sprintf("%s is not valid before %s", subject, c.NotBefore.UTC().Format(time.RFC3339))
	}
	return fmt.Sprintf("%s expired on %s", subject, c.NotAfter.UTC().Format(time.RFC3339))
}

// lastIssuer returns the missing issuer. It follows the names of issuers from the
// leaf, and does not check signatures, because a hostile peer could make it check
// thousands.
func lastIssuer(certs []*x509.Certificate) string {
	path := byName(certs, nil)
	last := path[len(path)-1]
	return nameText(last.RawIssuer, last.Issuer)
}

// verifyReason classifies an error of crypto/x509.
func verifyReason(err error) Reason {
	if invalid, ok := errors.AsType[x509.CertificateInvalidError](err); ok {
		switch invalid.Reason {
		case x509.Expired: // expired, or not valid yet
			if strings.Contains(invalid.Detail, "is before") {
				return ReasonNotYetValid
			}
			return ReasonExpired
		case x509.IncompatibleUsage:
			return ReasonWrongKeyUsage
		case x509.NotAuthorizedToSign: // an issuer that is not a CA
			return ReasonUnknownCA
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
