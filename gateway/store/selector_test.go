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
			t.Errorf("%.40q is taken", text)
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
