package route

import (
	"cmp"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/drawbridge-gateway/drawbridge/certs"
)

// An Identity is a condition on the client's verified certificate. Each field that is
// set must match. A client without a verified certificate matches no Identity.
type Identity struct {
	// SANs are names in the form of certs.ParseSANs. The certificate must have at least
	// one of them. In the path of a SPIFFE ID, "*" stands for one whole segment:
	// "URI:spiffe://corp/ns/*/sa/pay".
	SANs []string

	// Fingerprints are SHA-256 fingerprints in hexadecimal, with or without colons. The
	// certificate must have one of them.
	Fingerprints []string

	// Issuer is the distinguished name (RFC 4514) of the certificate's issuer.
	Issuer string
}

// A Client holds the parts of a client's verified certificate that rules match.
type Client struct {
	SANs        []string // in the form of certs.SAN.String
	Fingerprint string   // SHA-256, in lower-case hexadecimal
	Issuer      string   // from certs.IssuerName; "" matches no rule
}

// NewClient returns the Client of a verified certificate.
func NewClient(leaf *x509.Certificate) *Client {
	c := &Client{Fingerprint: certs.FingerprintOf(leaf), Issuer: certs.IssuerName(leaf)}
	for _, s := range certs.SANsOf(leaf) {
		c.SANs = append(c.SANs, s.String())
	}
	return c
}

// ParseClient parses the parts of a Client, in the form of an Identity. The error is
// Errors with the fields subject_alt_names[0], sha256_fingerprint and issuer.
func ParseClient(sans []string, fingerprint, issuer string) (*Client, error) {
	c := &Client{}
	var bad Errors
	var err error
	fail := func(field string, err error) {
		if err != nil {
			bad = append(bad, &RuleError{Field: field, Err: err})
		}
	}
	for i, text := range sans {
		n, err := parseName(text)
		if err == nil && n.wildcards > 0 {
			err = errors.New(`has the wildcard "*", which matches no client; write the whole name`)
		}
		fail(fmt.Sprintf("subject_alt_names[%d]", i), err)
		c.SANs = append(c.SANs, n.text)
	}
	if fingerprint != "" {
		c.Fingerprint, err = parseFingerprint(fingerprint)
		fail("sha256_fingerprint", err)
	}
	if issuer != "" {
		c.Issuer, err = certs.ParseDistinguishedName(issuer)
		fail("issuer", err)
	}
	if len(bad) > 0 {
		return nil, bad
	}
	return c, nil
}

// An identity is an Identity, or the part of an Identity whose names have the
// same number of wildcards and so are equally specific. The zero identity is no
// condition.
type identity struct {
	names        []sanPattern
	fingerprints []string
	issuer       string
}

// A sanPattern is a subject alternative name in the form of certs.SAN.String.
type sanPattern struct {
	text      string
	wildcards int // number of segments that are "*"
}

// maxIdentities bounds the names and the fingerprints of one Identity.
const maxIdentities = 100

// compileIdentity checks an Identity and returns its parts. For a nil Identity it returns
// one zero part.
func compileIdentity(in *Identity, fail func(field string, err error)) []identity {
	if in == nil {
		return []identity{{}}
	}
	if len(in.SANs)+len(in.Fingerprints) == 0 && in.Issuer == "" {
		fail("client_identity", errors.New("must have subject_alt_names, sha256_fingerprints or issuer"))
	}
	whole := identity{}
	for _, f := range []struct {
		name string
		n    int
	}{{"subject_alt_names", len(in.SANs)}, {"sha256_fingerprints", len(in.Fingerprints)}} {
		if f.n > maxIdentities {
			fail("client_identity."+f.name, fmt.Errorf("has %d entries; at most %d are allowed", f.n, maxIdentities))
		}
	}
	for i, text := range in.Fingerprints {
		f, err := parseFingerprint(text)
		fail(fmt.Sprintf("client_identity.sha256_fingerprints[%d]", i), err)
		if err == nil && !slices.Contains(whole.fingerprints, f) {
			whole.fingerprints = append(whole.fingerprints, f)
		}
	}
	if in.Issuer != "" {
		var err error
		whole.issuer, err = certs.ParseDistinguishedName(in.Issuer)
		fail("client_identity.issuer", err)
	}
	var names []sanPattern
	for i, text := range in.SANs {
		n, err := parseName(text)
		fail(fmt.Sprintf("client_identity.subject_alt_names[%d]", i), err)
		if err == nil && !slices.Contains(names, n) {
			names = append(names, n)
		}
	}
	if len(names) == 0 {
		return []identity{whole}
	}
	slices.SortStableFunc(names, func(a, b sanPattern) int { return a.wildcards - b.wildcards })
	var parts []identity
	for len(names) > 0 {
		n := 1
		for n < len(names) && names[n].wildcards == names[0].wildcards {
			n++
		}
		part := whole
		part.names, names = names[:n:n], names[n:]
		parts = append(parts, part)
	}
	return parts
}

func parseFingerprint(text string) (string, error) {
	fingerprint, ok := certs.ParseFingerprint(text)
	if !ok {
		return "", fmt.Errorf("%s is not a SHA-256 fingerprint: want 64 hexadecimal digits", quote(text))
	}
	return fingerprint, nil
}

// parseName parses a name, which may have wildcards.
func parseName(text string) (sanPattern, error) {
	san, err := certs.ParseSAN(text)
	if err != nil {
		return sanPattern{}, err
	}
	n := sanPattern{text: san.String()}
	if !strings.Contains(n.text, "*") {
		return n, nil
	}
	id, ok := strings.CutPrefix(n.text, spiffe)
	segments := strings.Split(id, "/")
	for i, s := range segments {
		switch {
		case s == "*" && i > 0:
			n.wildcards++
		case !isSegment(s):
			ok = false
		}
	}
	if !ok || n.wildcards == 0 {
		return sanPattern{}, fmt.Errorf(`%s: "*" can only stand for a whole segment in the path of a SPIFFE ID, as in "URI:spiffe://corp/ns/*/sa/pay"`, quote(text))
	}
	return n, nil
}

// spiffe begins the names that are SPIFFE IDs.
const spiffe = "URI:spiffe://"

// isSegment reports whether s can be a segment of a SPIFFE ID's path, or its trust
// domain (SPIFFE ID specification, sections 2.1 and 2.2).
func isSegment(s string) bool {
	for i := range len(s) {
		if c := s[i]; !isAlphanumeric(c) && c != '.' && c != '-' && c != '_' {
			return false
		}
	}
	return s != "" && s != "." && s != ".."
}

// matches reports whether a client's certificate meets the condition.
func (d *identity) matches(c *Client) bool {
	if d.rank() == (rank{}) {
		return true
	}
	if c == nil || d.issuer != "" && d.issuer != c.Issuer || len(d.fingerprints) > 0 && !slices.Contains(d.fingerprints, c.Fingerprint) {
		return false
	}
	if len(d.names) == 0 {
		return true
	}
	for i := range d.names {
		for _, have := range c.SANs {
			if d.names[i].matches(have) {
				return true
			}
		}
	}
	return false
}

func (n *sanPattern) matches(have string) bool {
	if n.wildcards == 0 {
		return n.text == have
	}
	pattern, id := n.text, have
	for {
		p, restOfPattern, morePattern := strings.Cut(pattern, "/")
		s, rest, more := strings.Cut(id, "/")
		if morePattern != more || p == "*" && !isSegment(s) || p != "*" && p != s {
			return false
		}
		if !more {
			return true
		}
		pattern, id = restOfPattern, rest
	}
}

// overlaps reports whether a name can match both patterns, which have equally many
// wildcards.
func (n *sanPattern) overlaps(o *sanPattern) bool {
	if n.wildcards == 0 {
		return n.text == o.text
	}
	a, b := strings.Split(n.text, "/"), strings.Split(o.text, "/")
	return slices.EqualFunc(a, b, func(x, y string) bool { return x == y || x == "*" && isSegment(y) || y == "*" && isSegment(x) })
}

// A rank says how specific an identity is: fingerprints before names before the issuer,
// and names with fewer wildcards before those with more. The zero rank has no condition.
type rank struct {
	fingerprints bool
	names        int // 0: no names; otherwise larger for fewer wildcards
	issuer       bool
}

// exactName is the rank of names without wildcards.
const exactName = 1 << 20

func (d *identity) rank() rank {
	r := rank{fingerprints: len(d.fingerprints) > 0, issuer: d.issuer != ""}
	if len(d.names) > 0 {
		r.names = exactName - d.names[0].wildcards
	}
	return r
}

// compare orders ranks, the more specific first.
func (r rank) compare(o rank) int {
	first := func(a, b bool) int {
		switch {
		case a == b:
			return 0
		case a:
			return -1
		}
		return 1
	}
	return cmp.Or(first(r.fingerprints, o.fingerprints), o.names-r.names, first(r.issuer, o.issuer))
}

// hasWildcards reports whether names with wildcards are the most specific part of the
// identity. Then only a patternIndex finds overlapping identities.
func (d *identity) hasWildcards() bool {
	return len(d.fingerprints) == 0 && len(d.names) > 0 && d.names[0].wildcards > 0
}

// keys returns keys for finding overlapping identities of the same rank and issuer. Two
// identities that overlap share a key. Others may share one too.
func (d *identity) keys() []string {
	switch {
	case len(d.fingerprints) > 0:
		return d.fingerprints
	case len(d.names) == 0:
		return []string{""} // the issuer is equal
	}
	keys := make([]string, len(d.names))
	for i, n := range d.names {
		keys[i] = n.text
	}
	return keys
}

// overlaps reports whether two identities of the same rank have the same issuer and
// overlap in their fingerprints, names or both.
func (d *identity) overlaps(o *identity) bool {
	if d.issuer != o.issuer {
		return false
	}
	if len(d.fingerprints) > 0 && !slices.ContainsFunc(d.fingerprints, func(f string) bool { return slices.Contains(o.fingerprints, f) }) {
		return false
	}
	return len(d.names) == 0 || slices.ContainsFunc(d.names, func(n sanPattern) bool {
		return slices.ContainsFunc(o.names, func(m sanPattern) bool { return n.overlaps(&m) })
	})
}

// String formats the condition for errors.
func (d *identity) String() string {
	var parts []string
	list := func(what string, n int, first string) {
		switch {
		case n == 1:
			parts = append(parts, what+" "+first)
		case n > 1:
			parts = append(parts, fmt.Sprintf("%s %s and %d more", what, first, n-1))
		}
	}
	if len(d.fingerprints) > 0 {
		list("fingerprint", len(d.fingerprints), d.fingerprints[0])
	}
	if len(d.names) > 0 {
		list("client name", len(d.names), quote(d.names[0].text))
	}
	if d.issuer != "" {
		parts = append(parts, "issuer "+quote(d.issuer))
	}
	return strings.Join(parts, ", ")
}
