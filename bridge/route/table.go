package route

import (
	"fmt"
	"maps"
	"net/textproto"
	"slices"
	"strings"

	"github.com/drawbridge-gateway/drawbridge/certs/sharded"
)

// A Request holds the properties that rules match.
type Request struct {
	Host   string // from NormalizeHost; may be ""
	Path   string // from NormalizePath
	Method string
	Scheme string // "http" or "https"; "" if unknown
	// Header returns the values of a header field by its canonical name
	// ("X-Tenant"). Nil means that the request has no fields.
	Header func(name string) []string
	// Client holds the client's verified certificate. Nil: the client has none, and
	// matches no rule with a condition on it.
	Client *Client
}

// A Table finds the most specific rule for a request. A nil *Table matches
// nothing. It is safe for concurrent use.
type Table[T any] struct {
	exact    sharded.Map[*bucket[T]] // buckets by host; "": rules without hosts
	wildcard sharded.Map[*bucket[T]] // buckets by the host's parent domain

	headers     map[string]int // how many rules have conditions on a field, by its name
	headerNames []string       // the names of these fields, in order
	programs    int            // instructions of all regular expressions
}

// HeaderNames returns the header fields that appear in conditions of rules.
func (t *Table[T]) HeaderNames() []string {
	if t == nil {
		return nil
	}
	return t.headerNames
}

// A bucket holds the rules of one host pattern.
type bucket[T any] struct {
	exact    sharded.Map[[]*entry[T]]
	prefixes sharded.Map[[]*entry[T]]
	longest  int // bytes of the longest prefix, which bounds the search
	regexes  []*entry[T]
	index    regexIndex // the index of regexes
	none     []*entry[T]
}

// New builds a table, or returns Errors with every fault: rules that
// CheckHost, CheckPath or CheckHeader rejects, and every ambiguous pair of
// rules.
func New[T any](rules []Rule[T]) (*Table[T], error) {
	b := newEditor(new(Table[T]))
	t := b.next
	var errs Errors
	taken := newConflicts()
	for i := range rules {
		r := &rules[i]
		entries, hosts, bad := compile(r)
		if len(bad) > 0 {
			errs = append(errs, bad...)
			continue
		}
		if !fits(&t.programs, entries[0].regex) {
			errs = append(errs, tooLarge(r.Name))
		}
		for _, host := range hosts {
			at := b.bucket(host)
			for _, e := range entries {
				errs = claim(&taken, errs, i, host, e, func(j int) string { return rules[j].Name })
				at.set(r.Path, append(at.list(r.Path), e)) // all lists are new, and belong to b
			}
		}
	}
	if len(errs) > 0 {
		return nil, errs
	}
	t.headers = map[string]int{}
	for i := range rules {
		countHeaders(t.headers, &rules[i], 1)
	}
	t.headerNames = slices.Sorted(maps.Keys(t.headers))
	for _, b := range b.buckets {
		b.sort()
	}
	b.finish()
	return t, nil
}

// Conflicts returns the faults that New finds in the rules, but accepts ambiguous rules
// that no table holds together: apart reports whether that is true of two rules, by
// their indices.
func Conflicts[T any](rules []Rule[T], apart func(i, j int) bool) error {
	var errs Errors
	taken, programs := newConflicts(), 0
	taken.apart = apart
	for i := range rules {
		entries, hosts, bad := compile(&rules[i])
		if len(bad) > 0 {
			errs = append(errs, bad...)
			continue
		}
		if !fits(&programs, entries[0].regex) {
			errs = append(errs, tooLarge(rules[i].Name))
		}
		for _, host := range hosts {
			for _, e := range entries {
				errs = claim(&taken, errs, i, host, e, func(j int) string { return rules[j].Name })
			}
		}
	}
	if len(errs) > 0 {
		return errs
	}
	return nil
}

// fits adds the size of an expression, which may be nil, to the size of all. It returns
// false once, for the expression that exceeds the limit.
func fits(programs *int, re *regex) bool {
	if re == nil {
		return true
	}
	before := *programs
	*programs += re.size
	return before > maxRegexPrograms || *programs <= maxRegexPrograms
}

// tooLarge returns the fault of the rule whose expression exceeds the limit.
func tooLarge(rule string) error {
	return &RuleError{Rule: rule, Field: "path", Err: fmt.Errorf(
		"the regular expressions of all rules together are too large (more than %d instructions); use prefixes, or repeat less", maxRegexPrograms)}
}

// countHeaders adds n for each header field that r has conditions on.
func countHeaders[T any](counts map[string]int, r *Rule[T], n int) {
	last := ""
	for _, h := range canonicalHeaders(r.Headers) { // sorted
		if h.Name == last {
			continue
		}
		last = h.Name
		if counts[h.Name] += n; counts[h.Name] == 0 {
			delete(counts, h.Name)
		}
	}
}

// compile checks a rule and returns at least one entry. For a rule without hosts it
// returns one pattern, "".
func compile[T any](r *Rule[T]) (entries []*entry[T], hosts []string, bad Errors) {
	fail := func(field string, err error) {
		if err != nil {
			bad = append(bad, &RuleError{Rule: r.Name, Field: field, Err: err})
		}
	}
	e := entry[T]{name: r.Name, path: r.Path, value: r.Value, scheme: r.NotScheme}
	for i, h := range r.Hosts {
		pattern, err := normalizePattern(h)
		fail(fmt.Sprintf("hosts[%d]", i), err)
		if err == nil && !slices.Contains(hosts, pattern) {
			hosts = append(hosts, pattern)
		}
	}
	if len(r.Hosts) == 0 {
		hosts = []string{""}
	}
	if r.Path.Kind == PathRegex {
		var err error
		e.regex, err = compileRegex(r.Path.Value)
		fail("path", err)
	} else {
		fail("path", CheckPath(r.Path))
	}
	for i, m := range r.Methods {
		if !isToken(m) {
			fail(fmt.Sprintf("methods[%d]", i), fmt.Errorf("%s is not a method; write one such as GET", quote(m)))
		}
		if !slices.Contains(e.methods, m) {
			e.methods = append(e.methods, m)
		}
	}
	for i, h := range r.Headers {
		fail(fmt.Sprintf("headers[%d]", i), CheckHeader(h))
	}
	e.headers = canonicalHeaders(r.Headers)
	for _, part := range compileIdentity(r.Client, fail) {
		one := e
		one.client = part
		entries = append(entries, &one)
	}
	return entries, hosts, bad
}

// conflicts records the owners of each set of conditions. Rules with different
// but overlapping method sets conflict, so each method is claimed separately.
type conflicts struct {
	apart    func(i, j int) bool // rules that never serve the same traffic; nil: none
	owners   map[string][]owner
	patterns map[string]*patternIndex // patterns of names with wildcards
	reported map[[2]int]bool
}

// An owner is the first rule with a set of conditions, or one of several whose client
// identities differ.
type owner struct {
	rule   int // the rule's index
	client *identity
}

func newConflicts() conflicts {
	return conflicts{owners: map[string][]owner{}, patterns: map[string]*patternIndex{}, reported: map[[2]int]bool{}}
}

// index returns the patterns of a set of conditions.
func (c *conflicts) index(key string) *patternIndex {
	x := c.patterns[key]
	if x == nil {
		x = new(patternIndex)
		c.patterns[key] = x
	}
	return x
}

// claim adds an error for each earlier rule that can match the same requests as the
// entry and is equally specific.
func claim[T any](c *conflicts, errs Errors, rule int, host string, e *entry[T], name func(int) string) Errors {
	var key strings.Builder
	fmt.Fprintf(&key, "%s\x00%d\x00%s", host, e.path.Kind, e.path.Value)
	for _, h := range e.headers {
		key.WriteString("\x00" + h.String())
	}
	if r := e.client.rank(); r != (rank{}) {
		fmt.Fprintf(&key, "\x00\x00%v\x00%s", r, e.client.issuer)
	}
	key.WriteString("\x00\x00")
	methods := e.methods
	if len(methods) == 0 {
		methods = []string{""}
	}
	for _, m := range methods {
		// check adds an error if the owner overlaps the entry, and reports whether it does.
		check := func(o owner) bool {
			if !e.client.overlaps(o.client) || o.rule != rule && c.apart != nil && c.apart(o.rule, rule) {
				return false
			}
			if pair := [2]int{o.rule, rule}; o.rule != rule && !c.reported[pair] {
				c.reported[pair] = true
				errs = append(errs, &ConflictError{Rules: [2]string{name(o.rule), name(rule)}, Conditions: describe(host, e.path, m, e.headers, &e.client)})
			}
			return true
		}
		if e.client.hasWildcards() {
			x := c.index(key.String() + m)
			for _, n := range e.client.names {
				x.overlapping(n.text, func(o owner) { check(o) })
			}
			for _, n := range e.client.names {
				x.add(n.text, owner{rule, &e.client})
			}
			continue
		}
		for _, id := range e.client.keys() {
			k := key.String() + m + "\x00" + id
			taken := false
			for _, o := range c.owners[k] {
				taken = check(o) || taken
			}
			if !taken || e.client.rank() != (rank{}) { // a later identity may overlap only this one
				c.owners[k] = append(c.owners[k], owner{rule, &e.client})
			}
		}
	}
	return errs
}

// describe formats the conditions that two rules share.
func describe(host string, p Path, method string, headers []Header, client *identity) string {
	var parts []string
	if host != "" {
		parts = append(parts, "host "+host)
	}
	switch p.Kind {
	case PathExact:
		parts = append(parts, "path "+quote(p.Value))
	case PathPrefix:
		parts = append(parts, "path prefix "+quote(p.Value))
	case PathRegex:
		parts = append(parts, "path regex "+quote(p.Value))
	}
	if method != "" {
		parts = append(parts, "method "+method)
	}
	for _, h := range headers {
		parts = append(parts, "header "+h.String())
	}
	if client.rank() != (rank{}) {
		parts = append(parts, client.String())
	}
	if len(parts) == 0 {
		return "everything"
	}
	return strings.Join(parts, ", ")
}

// Match returns the value of the most specific rule whose conditions all match. It
// compares hosts first: an exact host comes before a wildcard, and both before no host.
// It then compares paths, in the order exact path, longest prefix, regular expression,
// no path. Then conditions on the client, in the order fingerprint, names with fewer
// wildcards, names with more, issuer, no condition. Then more conditions on method and
// headers come first, then exact header values before mere presence, and finally the
// name that sorts first. It allocates nothing.
func (t *Table[T]) Match(r Request) (T, bool) {
	var zero T
	if t == nil {
		return zero, false
	}
	if r.Host != "" {
		if e := t.exact.Get(r.Host).match(&r); e != nil {
			return e.value, true
		}
		if _, parent, ok := strings.Cut(r.Host, "."); ok && t.wildcard.Len() > 0 {
			if e := t.wildcard.Get(parent).match(&r); e != nil {
				return e.value, true
			}
		}
	}
	if e := t.exact.Get("").match(&r); e != nil {
		return e.value, true
	}
	return zero, false
}

func (b *bucket[T]) match(r *Request) *entry[T] {
	if b == nil {
		return nil
	}
	if e := first(b.exact.Get(r.Path), r); e != nil {
		return e
	}
	if e := b.matchPrefix(r); e != nil {
		return e
	}
	at := b.index.first(r.Path, len(b.regexes), func(i int) bool {
		return b.regexes[i].matches(r) && b.regexes[i].regex.MatchString(r.Path)
	})
	if at < len(b.regexes) {
		return b.regexes[at]
	}
	return first(b.none, r)
}

// matchPrefix tries the path's own prefixes at segment boundaries, longest
// first. It never looks beyond the longest prefix of a rule, so that the rules
// bound the cost of a path with thousands of segments.
func (b *bucket[T]) matchPrefix(r *Request) *entry[T] {
	if b.longest == 0 || r.Path == "" || r.Path[0] != '/' {
		return nil
	}
	if len(r.Path) <= b.longest {
		if e := first(b.prefixes.Get(r.Path), r); e != nil {
			return e
		}
	}
	for i := min(len(r.Path)-1, b.longest); i >= 0; i-- {
		if r.Path[i] != '/' {
			continue
		}
		if e := first(b.prefixes.Get(r.Path[:i+1]), r); e != nil { // "/v2/"
			return e
		}
		if e := first(b.prefixes.Get(r.Path[:i]), r); e != nil { // "/v2"
			return e
		}
	}
	return nil
}

// first returns the first of the sorted entries that matches.
func first[T any](entries []*entry[T], r *Request) *entry[T] {
	for _, e := range entries {
		if e.matches(r) {
			return e
		}
	}
	return nil
}

// CheckHeader returns the fault of a condition on a header and the fix.
func CheckHeader(h Header) error {
	if !isToken(h.Name) {
		return fmt.Errorf("%s is not a header's name; write one such as X-Tenant", quote(h.Name))
	}
	// The host has its own condition, and the gateway does not forward the other
	// fields as the client sent them.
	switch textproto.CanonicalMIMEHeaderKey(h.Name) {
	case "Host":
		return fmt.Errorf("the host cannot be matched as a header; use hosts")
	case "Connection", "Transfer-Encoding", "Content-Length", "Trailer", "Te", "Keep-Alive", "Upgrade", "Proxy-Connection":
		return fmt.Errorf("%s belongs to the connection and cannot be matched", quote(h.Name))
	}
	if h.Exact != nil && strings.ContainsFunc(*h.Exact, func(c rune) bool { return c < ' ' && c != '\t' || c == 0x7f }) {
		return fmt.Errorf("the value of %s has a control character, which no header can have", h.Name)
	}
	return nil
}
