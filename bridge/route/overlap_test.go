package route

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
)

// The index finds exactly the overlapping patterns, for any order of insertion.
func TestPatternIndex(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for range 200 {
		x := new(patternIndex)
		var all []sanPattern
		for rule := range 40 {
			segments := make([]string, 1+rng.IntN(4))
			for i := range segments {
				segments[i] = []string{"a", "b", "*", "*"}[rng.IntN(4)]
			}
			n, err := parseName("URI:spiffe://corp/*/" + strings.Join(segments, "/"))
			if err != nil {
				t.Fatal(err)
			}
			found := map[int]bool{}
			x.overlapping(n.text, func(o owner) { found[o.rule] = true })
			for i := range all {
				same := strings.Count(n.text, "/") == strings.Count(all[i].text, "/")
				if want := same && n.overlaps(&all[i]); found[i] != want {
					t.Fatalf("%s and %s overlap: %v, found: %v", n.text, all[i].text, want, found[i])
				}
			}
			x.add(n.text, owner{rule: rule})
			all = append(all, n)
		}
	}
}

// Patterns that do not overlap are never compared.
func TestPatternIndexFindsNoOthers(t *testing.T) {
	x, found := new(patternIndex), 0
	for i := range 1000 {
		for _, pattern := range []string{"URI:spiffe://corp/ns/%d/sa/*", "URI:spiffe://corp/%d/*/sa"} {
			text := fmt.Sprintf(pattern, i)
			x.overlapping(text, func(owner) { found++ })
			x.add(text, owner{rule: i})
		}
	}
	if found > 0 {
		t.Errorf("%d candidates", found)
	}
}

// BenchmarkWildcardIdentities makes a table of 10,000 rules with a wildcard each.
func BenchmarkWildcardIdentities(b *testing.B) {
	rules := make([]Rule[int], 10_000)
	for i := range rules {
		rules[i] = Rule[int]{Name: fmt.Sprint(i), Client: &Identity{SANs: []string{fmt.Sprintf("spiffe://corp/ns/%d/sa/*", i)}}}
	}
	for b.Loop() {
		if _, err := New(rules); err != nil {
			b.Fatal(err)
		}
	}
}
