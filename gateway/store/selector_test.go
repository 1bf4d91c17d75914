package store

import (
	"strings"
	"testing"
)

func TestSelectorsChooseByLabels(t *testing.T) {
	labels := map[string]string{"team": "pay", "zone": "a", "empty": ""}
	for text, want := range map[string]bool{
		"":                               true,
		"  ":                             true,
		"team=pay":                       true,
		"team = pay , zone=a":            true,
		"team=other":                     false,
		"team!=other":                    true,
		"team!=pay":                      false,
		"missing=x":                      false,
		"missing!=x":                     true, // a missing label differs from x
		"missing=":                       false,
		"empty=":                         true,
		"zone in (a,b)":                  true,
		"zone in (b, a),team=pay":        true,
		"zone in (b,c)":                  false,
		"zone in (a,b),team in (x)":      false,
		"zone in (a,b),team!=x,empty!=y": true,
	} {
		s, err := ParseSelector(text)
		if err != nil {
			t.Errorf("%q: %v", text, err)
		} else if got := s.Matches(labels); got != want {
			t.Errorf("%q: %v, want %v", text, got, want)
		}
	}
}

func TestInvalidSelectorsAreRejected(t *testing.T) {
	for _, text := range []string{
		"team", "=pay", "!=pay", ",", "team=pay,", "team in pay", "team in (a", "team in a)", "a=b=c", "in (a)", "team in (a)(b)", "x y=1", strings.Repeat("a", MaxSelector) + "=b",
	} {
		if _, err := ParseSelector(text); err == nil {
			t.Errorf("%.40q was accepted", text)
		}
	}
}

func TestDisjointSelectorsMatchNoLabelsTogether(t *testing.T) {
	for _, c := range []struct {
		a, b string
		want bool
	}{
		{"", "", false},
		{"zone=a", "", false},
		{"zone=a", "zone=b", true},
		{"zone=a", "zone=a", false},
		{"zone=a", "zone!=a", true},
		{"zone=a", "zone!=b", false},
		{"zone!=a", "zone!=b", false}, // a third zone matches both
		{"zone in (a,b)", "zone in (b,c)", false},
		{"zone in (a,b)", "zone in (c,d)", true},
		{"zone in (a,b)", "zone!=a,zone!=b", true},
		{"zone in (a,b),zone in (b,c)", "zone in (a,c)", true},
		{"zone=a,zone=b", "", true}, // matches nothing on its own
		{"zone=a", "tier=edge", false},
		{"zone=a,tier=core", "tier=edge", true},
	} {
		a, errA := ParseSelector(c.a)
		b, errB := ParseSelector(c.b)
		if errA != nil || errB != nil {
			t.Fatal(errA, errB)
		}
		if a.Disjoint(b) != c.want || b.Disjoint(a) != c.want {
			t.Errorf("%q and %q: %v and %v, want %v", c.a, c.b, a.Disjoint(b), b.Disjoint(a), c.want)
		}
	}
}

func FuzzSelector(f *testing.F) {
	f.Add("a=b,c!=d,e in (f,g)", "a", "b")
	f.Fuzz(func(t *testing.T, text, key, value string) {
		if s, err := ParseSelector(text); err == nil {
			s.Matches(map[string]string{key: value})
		}
	})
}
