package certs

import (
	"crypto/tls"
	"fmt"
	"slices"
	"strings"

	"github.com/agnivade/levenshtein"

	"github.com/drawbridge-gateway/drawbridge/certs/safetext"
)

const maxCipherText = 8192 // total bytes of all entries

// ParseCipherSuites returns the cipher suites for TLS 1.2 and below that the
// entries select. Each entry is an IANA name, an OpenSSL name or an OpenSSL
// cipher list such as "HIGH:!aNULL:!MD5"; several entries form one list. No
// entries return nil, which means Go's secure list.
//
// It supports this part of openssl-ciphers(1): the separators ":", "," and "
// ", the prefixes "!", "-" and "+", "A+B", "@STRENGTH" and every alias. Suites
// that crypto/tls does not implement are dropped. An alias selects only suites
// without known weaknesses. A weak suite must be named, or selected by all of
// its kRSA, RC4 and 3DES aliases, as in "kRSA+3DES". crypto/tls ignores the
// order of the result.
//
// The warnings report how lists were expanded, which suites were dropped and
// which are weak. The error is Faults with the fields "[i]", or "" if no suite
// remains.
func ParseCipherSuites(names []string) (ids []uint16, warnings []string, err error) {
	if len(names) == 0 {
		return nil, nil, nil
	}
	p := cipherParser{killed: make(map[uint16]bool)}
	size := 0
	for i, entry := range names {
		if size += len(entry); size > maxCipherText {
			p.bad.add(fmt.Sprintf("[%d]", i), "makes the list longer than %d bytes", maxCipherText)
			break
		}
		p.field = fmt.Sprintf("[%d]", i)
		p.entry(entry)
	}
	if len(p.bad) == 0 && len(p.active) == 0 {
		p.bad.add("", "%s", p.explainEmpty())
	}
	if err := p.bad.err(); err != nil {
		return nil, nil, err
	}
	for _, s := range p.active {
		ids = append(ids, s.id)
	}
	return ids, p.warnings(names), nil
}

// A cipherParser evaluates a cipher list as OpenSSL does: as a sequence of
// rules that each change the list of active suites.
type cipherParser struct {
	field string
	bad   Faults

	active []*suite
	killed map[uint16]bool // excluded by "!", so they cannot be added again
	list   bool            // the input was a list, not only names

	tls13   []string // TLS 1.3 names
	missing []string // requested, but not in crypto/tls
	ignored []string // commands that have no effect in this program
	weak    []*suite // weak suites that an alias would have covered
}

func (p *cipherParser) entry(entry string) {
	rules := strings.FieldsFunc(entry, func(r rune) bool { return r == ':' || r == ',' || r == ' ' || r == ';' })
	if len(rules) == 0 {
		p.bad.add(p.field, "is empty: want the name of a cipher suite")
	}
	// The entry may be a private key in the wrong field. The code below would
	// split and quote it, and then other code would not recognize it as a key.
	if strings.Contains(entry, "-----") || strings.Contains(strings.TrimSpace(entry), "\n") {
		p.bad.add(p.field, "is PEM or other text of several lines: want the name of a cipher suite")
		return
	}
	for _, text := range rules {
		p.rule(text)
	}
}

func (p *cipherParser) rule(text string) {
	if strings.HasPrefix(text, "@") {
		p.command(text)
		return
	}
	op := byte(0)
	if strings.IndexByte("!-+", text[0]) >= 0 {
		op, text = text[0], text[1:]
		p.list = true
	}
	o, ok := p.terms(text, op == 0)
	if !ok {
		return
	}
	match := o.match
	switch op {
	case '!', '-':
		p.active = slices.DeleteFunc(p.active, match)
		p.weak = slices.DeleteFunc(p.weak, match)
		for i := range suites {
			if op == '!' && match(&suites[i]) {
				p.killed[suites[i].id] = true
			}
		}
	case '+': // move to the end
		var moved []*suite
		for _, s := range p.active {
			if match(s) {
				moved = append(moved, s)
			}
		}
		p.active = append(slices.DeleteFunc(p.active, match), moved...)
	default:
		for i := range suites {
			s := &suites[i]
			if !match(s) || p.killed[s.id] || slices.Contains(p.active, s) {
				continue
			}
			if s.insecure() && !o.explicit(s) {
				p.weak = append(p.weak, s)
				continue
			}
			p.active = append(p.active, s)
		}
	}
}

func (p *cipherParser) command(text string) {
	p.list = true
	switch upper := strings.ToUpper(text); {
	case upper == "@STRENGTH":
		slices.SortStableFunc(p.active, func(a, b *suite) int { return b.bits - a.bits })
	case strings.HasPrefix(upper, "@SECLEVEL="):
		p.ignored = append(p.ignored, text)
	default:
		p.bad.add(p.field, "%q is not a command: want @STRENGTH", safetext.Printable(text, 60))
	}
}

// A selector matches the suites that have all its names and all its aliases.
type selector struct {
	empty   bool // a term selects nothing
	names   []*suite
	aliases []string
}

func (o *selector) match(s *suite) bool {
	if o.empty {
		return false
	}
	for _, n := range o.names {
		if n != s {
			return false
		}
	}
	for _, a := range o.aliases {
		if !s.has(a) {
			return false
		}
	}
	return true
}

// explicit reports whether the selector selects a weak suite explicitly: by its
// name, or by all aliases for its weaknesses.
func (o *selector) explicit(s *suite) bool {
	if len(o.names) > 0 {
		return true
	}
	named := false
	for _, weakness := range []string{"kRSA", "RC4", "3DES"} {
		if !s.has(weakness) {
			continue
		}
		if !slices.Contains(o.aliases, weakness) {
			return false
		}
		named = true
	}
	return named
}

// terms parses "A+B". It records unsupported suites if the rule adds suites.
func (p *cipherParser) terms(text string, adds bool) (o selector, ok bool) {
	for _, term := range strings.Split(text, "+") {
		if s := suiteNamed(term); s != nil {
			o.names = append(o.names, s)
			continue
		}
		if alias, known := suiteAlias(term); known {
			o.aliases = append(o.aliases, alias)
			p.list = true
			continue
		}
		o.empty = true
		switch {
		case isTLS13(term):
			p.tls13 = append(p.tls13, term)
		case isUnsupported(term):
			if adds {
				p.missing = append(p.missing, term)
			}
		default:
			p.bad.add(p.field, "%q is not a cipher suite%s", safetext.Printable(term, 60), suggestSuite(term))
			return selector{}, false
		}
	}
	return o, true
}

func (p *cipherParser) explainEmpty() string {
	switch {
	case len(p.tls13) > 0 && len(p.missing) == 0 && len(p.weak) == 0:
		return "names only TLS 1.3 suites, which cannot be selected: omit cipher_suites and set min_version to TLS 1.3"
	case len(p.weak) > 0:
		return "leaves only suites with known weaknesses, each of which must be named: " + nameList(ianaNames(p.weak))
	case len(p.missing) > 0:
		return "leaves no cipher suite (not supported: " + nameList(p.missing) + "); try HIGH, or ECDHE+AESGCM"
	}
	return "leaves no cipher suite: try HIGH, or ECDHE+AESGCM"
}

func (p *cipherParser) warnings(names []string) []string {
	var w []string
	if p.list {
		w = append(w, fmt.Sprintf("%q expands to %s", safetext.Printable(strings.Join(names, ":"), 200), strings.Join(ianaNames(p.active), ", ")))
	}
	if len(p.missing) > 0 {
		w = append(w, "dropped, because they are not supported: "+nameList(p.missing))
	}
	if len(p.tls13) > 0 {
		w = append(w, "TLS 1.3 suites are always enabled and cannot be selected: "+nameList(p.tls13))
	}
	if len(p.ignored) > 0 {
		w = append(w, "has no effect: "+nameList(p.ignored))
	}
	var weak []*suite
	for _, s := range p.active {
		if s.insecure() {
			weak = append(weak, s)
		}
	}
	if len(weak) > 0 {
		w = append(w, "has known weaknesses: "+strings.Join(ianaNames(weak), ", "))
	}
	return w
}

func ianaNames(list []*suite) []string {
	var names []string
	for _, s := range list {
		names = append(names, tls.CipherSuiteName(s.id))
	}
	return names
}

// suggestSuite returns a hint for an unknown name, such as the nearest valid name.
func suggestSuite(name string) string {
	if strings.HasPrefix(strings.ToUpper(name), "SSLV") {
		return ": it is the name of an insecure protocol version (RFC 7568)"
	}
	best, least := "", max(1, min(len(name)/4, 4))+1
	if len(name) <= 64 {
		for _, candidate := range suiteNames() {
			if d := levenshtein.ComputeDistance(strings.ToUpper(name), strings.ToUpper(candidate)); d < least {
				best, least = candidate, d
			}
		}
	}
	if best == "" {
		return ": want an IANA or OpenSSL name, such as TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256 or ECDHE-RSA-AES128-GCM-SHA256"
	}
	return fmt.Sprintf(": did you mean %q?", best)
}
