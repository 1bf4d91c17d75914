package route

import (
	"errors"
	"fmt"
	"net/textproto"
	"slices"
	"strings"
)

// A PathKind selects how a Path is compared.
type PathKind int

// The kinds, from least to most specific.
const (
	PathNone   PathKind = iota // any path
	PathRegex                  // an RE2 expression for the whole path
	PathPrefix                 // the path begins with the value, at a segment boundary
	PathExact                  // the path equals the value
)

// A Path is a condition on a request's path. The zero value matches every
// path, and "*".
//
// The prefix "/v2" matches "/v2" and everything below "/v2/", but not "/v2x".
// The prefix "/v2/" matches "/v2/" and everything below, but not "/v2"; it is
// longer, so it is more specific.
type Path struct {
	Kind  PathKind
	Value string
}

// A Header is a condition on a request header: one of its values is *Exact or,
// if Exact is nil, the header exists. The name is case-insensitive.
type Header struct {
	Name  string
	Exact *string
}

// A Rule maps requests that match all of its conditions to Value. Zero
// conditions match everything.
type Rule[T any] struct {
	Name    string   // for errors, and to order otherwise equal rules
	Hosts   []string // at least one matches; exact, or with "*" as the whole first label
	Path    Path
	Methods []string // at least one matches; case-sensitive
	Headers []Header // all match

	// Client is a condition on the client's verified certificate. Nil: any client,
	// with or without a certificate.
	Client *Identity

	// NotScheme is a scheme whose requests do not match the rule: a rule that
	// redirects to https must not match https requests, or it would cause a
	// redirect loop. It does not affect how specific or distinct a rule is. "":
	// any scheme matches.
	NotScheme string

	Value T
}

// A RuleError describes the fault of one rule.
type RuleError struct {
	Rule  string
	Field string // "hosts[2]", "path", "methods[0]", "headers[1]", "client_identity.issuer"
	Err   error  // includes the fix
}

func (e *RuleError) Error() string { return fmt.Sprintf("rule %s: %s: %v", e.Rule, e.Field, e.Err) }

// Unwrap returns the fault, without the rule's name.
func (e *RuleError) Unwrap() error { return e.Err }

// A ConflictError names two rules that match the same requests although
// neither is more specific.
type ConflictError struct {
	Rules      [2]string // in the given order
	Conditions string    // the conditions they share
}

func (e *ConflictError) Error() string {
	return fmt.Sprintf("rules %s and %s both match %s, and neither is more specific", e.Rules[0], e.Rules[1], e.Conditions)
}

// Errors lists every fault of a list of rules, as *RuleError or
// *ConflictError.
type Errors []error

func (e Errors) Error() string { return errors.Join(e...).Error() }

// Unwrap returns the single errors.
func (e Errors) Unwrap() []error { return e }

// entry is a rule in a bucket, shared by all of its hosts. A rule whose client names
// are not equally specific has an entry for each rank.
type entry[T any] struct {
	name    string
	path    Path
	client  identity
	methods []string
	headers []Header // canonical names, sorted
	scheme  string   // Rule.NotScheme
	regex   *regex
	value   T
}

// matches checks the conditions that no map covers.
func (e *entry[T]) matches(r *Request) bool {
	if e.scheme != "" && e.scheme == r.Scheme {
		return false
	}
	if len(e.methods) > 0 && !slices.Contains(e.methods, r.Method) {
		return false
	}
	if !e.client.matches(r.Client) {
		return false
	}
	for i := range e.headers {
		if !e.headers[i].matches(r) {
			return false
		}
	}
	return true
}

func (h *Header) matches(r *Request) bool {
	if r.Header == nil {
		return false
	}
	values := r.Header(h.Name)
	if h.Exact == nil {
		return len(values) > 0
	}
	return slices.Contains(values, *h.Exact)
}

// compare orders entries of one host and path: the more specific first, then
// by name, so that the result does not depend on the order of the rules.
func (e *entry[T]) compare(o *entry[T]) int {
	if n := e.client.rank().compare(o.client.rank()); n != 0 {
		return n
	}
	if n := o.conditions() - e.conditions(); n != 0 {
		return n
	}
	if n := o.exactHeaders() - e.exactHeaders(); n != 0 {
		return n
	}
	return strings.Compare(e.name, o.name)
}

// conditions counts the conditions on method and headers.
func (e *entry[T]) conditions() int {
	n := len(e.headers)
	if len(e.methods) > 0 {
		n++
	}
	return n
}

func (e *entry[T]) exactHeaders() int {
	n := 0
	for _, h := range e.headers {
		if h.Exact != nil {
			n++
		}
	}
	return n
}

// canonicalHeaders returns the conditions with canonical names, sorted,
// without duplicates, so that equal sets are equal slices.
func canonicalHeaders(in []Header) []Header {
	out := make([]Header, 0, len(in))
	for _, h := range in {
		out = append(out, Header{Name: textproto.CanonicalMIMEHeaderKey(h.Name), Exact: h.Exact})
	}
	slices.SortFunc(out, func(a, b Header) int { return strings.Compare(a.String(), b.String()) })
	return slices.CompactFunc(out, func(a, b Header) bool { return a.String() == b.String() })
}

// String formats the condition for errors.
func (h Header) String() string {
	if h.Exact == nil {
		return h.Name
	}
	return fmt.Sprintf("%s: %q", h.Name, *h.Exact)
}
