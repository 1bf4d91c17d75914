package certs

import (
	"bytes"
	"crypto/x509"
	"fmt"
	"slices"
	"time"
)

// A crlSet holds the revocation lists of a trust bundle.
type crlSet struct {
	lists    []*crl            // without duplicates, in the order of the sources
	byIssuer map[string][]*crl // by the DER of the issuer's name
}

func newCRLSet(lists []*crl) *crlSet {
	s := &crlSet{byIssuer: make(map[string][]*crl)}
	seen := make(map[string]bool)
	for _, l := range lists {
		if text := string(l.list.RawTBSRevocationList); !seen[text] {
			seen[text] = true
			s.lists = append(s.lists, l)
			s.byIssuer[string(l.list.RawIssuer)] = append(s.byIssuer[string(l.list.RawIssuer)], l)
		}
	}
	return s
}

// equal reports whether s and other hold the same lists. An empty set and a nil
// set differ.
func (s *crlSet) equal(other *crlSet) bool {
	if s == nil || other == nil {
		return s == other
	}
	return len(s.lists) == len(other.lists) && !slices.ContainsFunc(s.lists, func(l *crl) bool {
		return !slices.ContainsFunc(other.byIssuer[string(l.list.RawIssuer)], func(m *crl) bool {
			return bytes.Equal(l.list.RawTBSRevocationList, m.list.RawTBSRevocationList)
		})
	})
}

// checkRevocation checks a chain against the lists of every bundle that
// contains its anchor. If a bundle has lists, each certificate except the
// anchor needs a current one that its issuer in this chain signed, as in
// OpenSSL and nginx: a certificate without a list may be revoked.
func checkRevocation(trust []*TrustBundle, chain []*x509.Certificate, now time.Time) *VerifyError {
	anchor := chain[len(chain)-1]
	var sets []*crlSet
	for _, b := range trust {
		if b.crls == nil || !b.holds(anchor) {
			continue
		}
		sets = append(sets, b.crls)
		if by := b.revoker(anchor); by != nil {
			return revokedError(anchor, by)
		}
	}
	if len(sets) == 0 {
		return nil
	}
	for i, c := range chain[:len(chain)-1] {
		if e := checkListed(sets, c, chain[i+1], now); e != nil {
			return e
		}
	}
	return nil
}

// checkListed checks one certificate.
func checkListed(sets []*crlSet, c, issuer *x509.Certificate, now time.Time) *VerifyError {
	var current bool
	var outdated, forged, elsewhere *crl
	for _, s := range sets {
		for _, l := range s.byIssuer[string(issuer.RawSubject)] {
			switch {
			case !l.signedBy(issuer):
				forged = l
			case !l.scope.covers(c):
				elsewhere = l
			case !l.isCurrent(now):
				outdated = l
			case l.lists(c.SerialNumber):
				return revokedError(c, l)
			default:
				current = true
			}
		}
	}
	if current {
		return nil
	}
	e := &VerifyError{Reason: ReasonCRLExpired}
	who := describeName(c)
	switch {
	case outdated != nil && now.Before(outdated.list.ThisUpdate):
		e.Detail = fmt.Sprintf("whether %s is revoked is unknown: the revocation list of %q is not valid before %s",
			who, outdated.issuer(), outdated.list.ThisUpdate.UTC().Format(time.RFC3339))
	case outdated != nil:
		e.Detail = fmt.Sprintf("whether %s is revoked is unknown: the revocation list of %q is outdated, the next one was due on %s",
			who, outdated.issuer(), outdated.list.NextUpdate.UTC().Format(time.RFC3339))
	case elsewhere != nil:
		e.Detail = fmt.Sprintf("whether %s is revoked is unknown: the revocation list of %q is only for %s",
			who, elsewhere.issuer(), elsewhere.scope)
	case forged != nil:
		e.Detail = fmt.Sprintf("whether %s is revoked is unknown: the revocation list of %q was not signed by its issuer's key",
			who, forged.issuer())
	default:
		e.Detail = fmt.Sprintf("whether %s is revoked is unknown: the trust bundle has revocation lists, but none of its issuer, %s",
			who, describeName(issuer))
	}
	return e
}

func revokedError(c *x509.Certificate, by *crl) *VerifyError {
	return &VerifyError{
		Reason: ReasonRevoked,
		Detail: fmt.Sprintf("the certificate %s, serial %x, was revoked by %q, in the list of %s",
			describeName(c), c.SerialNumber, by.issuer(), by.list.ThisUpdate.UTC().Format(time.RFC3339)),
	}
}

// revoker returns the list that revokes an anchor, or nil. An anchor is trusted
// directly, so it needs no list. But if the bundle also contains the anchor's
// issuer and the issuer's list, that list applies; otherwise an intermediate
// beside its root could never be revoked. An outdated list is enough:
// revocations are rarely withdrawn.
func (b *TrustBundle) revoker(anchor *x509.Certificate) *crl {
	for _, l := range b.crls.byIssuer[string(anchor.RawIssuer)] {
		if isSelfIssued(anchor) || !l.lists(anchor.SerialNumber) || !l.scope.covers(anchor) {
			continue
		}
		for _, issuer := range b.certs {
			if string(issuer.RawSubject) == string(anchor.RawIssuer) && l.signedBy(issuer) {
				return l
			}
		}
	}
	return nil
}
