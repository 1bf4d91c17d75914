package store

import (
	"fmt"
	"slices"
	"strings"
)

// A Selector selects resources by their labels. The zero value selects all.
type Selector struct {
	terms []term
}

// A term is one condition: the label is, or is not, one of the values.
type term struct {
	key    string
	values []string
	not    bool
}

// MaxSelector bounds the length of a selector, in bytes.
const MaxSelector = 4096

// ParseSelector parses "key=value,key!=value,key in (a,b)". Empty text selects all. The
// error describes the valid form.
func ParseSelector(text string) (Selector, error) {
	var s Selector
	if len(text) > MaxSelector {
		return s, fmt.Errorf("has %d bytes; at most %d are allowed", len(text), MaxSelector)
	}
	if strings.TrimSpace(text) == "" {
		return s, nil
	}
	for _, part := range splitTerms(text) {
		t, ok := parseTerm(part)
		if !ok {
			return Selector{}, fmt.Errorf("holds %q; each term must be key=value, key!=value or key in (a,b), with commas between terms", part)
		}
		s.terms = append(s.terms, t)
	}
	return s, nil
}

// splitTerms splits at the commas that are not within parentheses.
func splitTerms(text string) []string {
	var parts []string
	from, within := 0, false
	for i, c := range text {
		switch {
		case c == '(':
			within = true
		case c == ')':
			within = false
		case c == ',' && !within:
			parts = append(parts, strings.TrimSpace(text[from:i]))
			from = i + 1
		}
	}
	return append(parts, strings.TrimSpace(text[from:]))
}

func parseTerm(text string) (term, bool) {
	if key, set, ok := strings.Cut(text, " in "); ok && !strings.Contains(key, "=") {
		set = strings.TrimSpace(set)
		inner, opened := strings.CutPrefix(set, "(")
		inner, closed := strings.CutSuffix(inner, ")")
		t := term{key: strings.TrimSpace(key)}
		for _, v := range strings.Split(inner, ",") {
			t.values = append(t.values, strings.TrimSpace(v))
		}
		return t, opened && closed && plainKey(t.key) && !strings.ContainsAny(inner, "()")
	}
	key, value, ok := strings.Cut(text, "=")
	key, not := strings.CutSuffix(key, "!")
	t := term{key: strings.TrimSpace(key), values: []string{strings.TrimSpace(value)}, not: not}
	return t, ok && plainKey(t.key) && !strings.ContainsAny(value, "=()")
}

func plainKey(key string) bool { return key != "" && !strings.ContainsAny(key, "!=(), ") }

// Matches reports whether all terms hold for the labels.
func (s Selector) Matches(labels map[string]string) bool {
	for _, t := range s.terms {
		if t.holds(labels) == t.not {
			return false
		}
	}
	return true
}

// holds reports whether the label is one of the values.
func (t term) holds(labels map[string]string) bool {
	value, ok := labels[t.key]
	return ok && slices.Contains(t.values, value)
}

// Disjoint reports whether no labels match both selectors.
func (s Selector) Disjoint(o Selector) bool {
	all := slices.Concat(s.terms, o.terms)
	allowed := func(key, value string) bool {
		return !slices.ContainsFunc(all, func(t term) bool { return t.key == key && slices.Contains(t.values, value) == t.not })
	}
	// An absent label satisfies every negated term. So only terms that require a
	// label matter: if no value is allowed, no labels match both.
	return slices.ContainsFunc(all, func(t term) bool {
		return !t.not && !slices.ContainsFunc(t.values, func(value string) bool { return allowed(t.key, value) })
	})
}

// A Selecting is a resource that selects the gateways at which it applies.
type Selecting interface{ GetGateways() string }

// Absent returns why a resource is not live at a gateway that has the state.
func (s *State) Absent(ref Ref) string {
	if r, ok := s.Get(ref.Kind, ref.Name).(Selecting); ok {
		return fmt.Sprintf("%v applies only to gateways with %q, and not to this one", ref, r.GetGateways())
	}
	return fmt.Sprintf("there is no %s %s", KindName(ref.Kind), quote(ref.Name))
}
