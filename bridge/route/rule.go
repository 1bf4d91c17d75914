package route

import (
	"errors"
	"fmt"
	"net/textproto"
	"slices"
	"strings"
)

// A PathKind says how a Path is compared.
type PathKind int

// The kinds, by how specific they are.
const (
	PathNone   PathKind = iota // any path
	PathRegex                  // an RE2 expression for the whole path
	PathPrefix                 // the path begins so, at a segment's border
	PathExact                  // the path is this
)

// A Path is a condition on a request's path. The zero value holds for every
// path, and for "*".
//
// The prefix "/v2" holds for "/v2" and for all below "/v2/", not for "/v2x".
// The prefix "/v2/" holds for all below "/v2/" and for "/v2/" itself, not for
// "/v2"; of the two it is the longer, and so the more specific.
type Path struct {
	Kind  PathKind
	Value string
}

// A Header is a condition on a request header: one of its values is *Exact, or
// if Exact is nil it is present. The name may be in any case.
type Header struct {
	Name  string
	Exact *string
}

// A Rule maps what fulfils all of its conditions to Value. The zero conditions
// hold for everything.
type Rule[T any] struct {
	Name    string   // for errors, and for the order of rules that are otherwise equal
	Hosts   []string // any of which; exact, or with "*" for the whole first label
	Path    Path
	Methods []string // any of which, compared with case
	Headers []Header // all of which

	// NotScheme is a scheme of which requests do not fulfil the rule: one that
	// sends to https is not for those that came by it, or it would send them
	// round in circles. It makes a rule neither more specific nor another. "":
	// the scheme does not matter.
	NotScheme string

	Value T
}

// A RuleError says what is wrong with one rule.
type RuleError struct {
	Rule  string
	Field string // "hosts[2]", "path", "methods[0]", "headers[1]"
	Err   error  // says what would be right
}

func (e *RuleError) Error() string { return fmt.Sprintf("rule %s: %s: %v", e.Rule, e.Field, e.Err) }

// Unwrap returns what is wrong, without the rule's name.
func (e *RuleError) Unwrap() error { return e.Err }

// A ConflictError names two rules of which neither is more specific than the
// other for the requests that fulfil both.
type ConflictError struct {
	Rules [2]string // in the order they were given
	What  string    // the conditions they share
}

func (e *ConflictError) Error() string {
	return fmt.Sprintf("rules %s and %s both match %s, and neither is more specific", e.Rules[0], e.Rules[1], e.What)
}

// Errors is everything that is wrong with a list of rules: each is a
// *RuleError or a *ConflictError.
type Errors []error

func (e Errors) Error() string { return errors.Join(e...).Error() }

// Unwrap returns the single errors.
func (e Errors) Unwrap() []error { return e }

// entry is a rule as one bucket holds it. It is shared by all of its hosts.
type entry[T any] struct {
	name    string
	methods []string
	headers []Header // canonical names, sorted
	scheme  string   // Rule.NotScheme
	regex   *regex
	value   T
}

// matches reports whether the conditions hold that no map answers.
func (e *entry[T]) matches(r *Request) bool {
	if e.scheme != "" && e.scheme == r.Scheme {
		return false
	}
	if len(e.methods) > 0 && !slices.Contains(e.methods, r.Method) {
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
// by name, so that the order does not depend on that of the rules.
func (e *entry[T]) compare(o *entry[T]) int {
	if n := o.conditions() - e.conditions(); n != 0 {
		return n
	}
	if n := o.exactHeaders() - e.exactHeaders(); n != 0 {
		return n
	}
	return strings.Compare(e.name, o.name)
}

// conditions counts those on method and headers.
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

// canonicalHeaders returns the conditions with canonical names, sorted and
// without repetitions, so that equal sets are equal slices.
func canonicalHeaders(in []Header) []Header {
	out := make([]Header, 0, len(in))
	for _, h := range in {
		out = append(out, Header{Name: textproto.CanonicalMIMEHeaderKey(h.Name), Exact: h.Exact})
	}
	slices.SortFunc(out, func(a, b Header) int { return strings.Compare(a.String(), b.String()) })
	return slices.CompactFunc(out, func(a, b Header) bool { return a.String() == b.String() })
}

// String is the condition as errors show it.
func (h Header) String() string {
	if h.Exact == nil {
		return h.Name
	}
	return fmt.Sprintf("%s: %q", h.Name, *h.Exact)
}
