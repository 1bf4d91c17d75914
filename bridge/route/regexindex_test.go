package route

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/drawbridge-gateway/drawbridge/bridge/alloctest"
)

// randomExpression returns an expression over a small alphabet, so that paths often
// match several.
func randomExpression(rng *rand.Rand, depth int) string {
	literal := func() string {
		var s strings.Builder
		for range 1 + rng.IntN(7) {
			s.WriteString([]string{"a", "b", "/", "é", "\uFFFD"}[rng.IntN(5)])
		}
		return s.String()
	}
	if depth == 0 {
		return literal()
	}
	sub := func() string { return randomExpression(rng, depth-1) }
	switch rng.IntN(8) {
	case 0:
		return "(" + sub() + ")" + []string{"*", "+", "?", "{0,2}", "{2}"}[rng.IntN(5)]
	case 1:
		return "(?:" + sub() + "|" + sub() + ")"
	case 2:
		return "(?i:" + sub() + ")"
	case 3:
		return ".*" + sub()
	case 4:
		return "[ab/]+" + sub()
	default:
		return sub() + sub()
	}
}

// The index never changes which expression matches, because it skips only
// expressions that cannot match.
func TestTheIndexMatchesLikeALinearSearch(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	matched := 0
	for range 200 {
		var rules []Rule[string]
		for i := range 1 + rng.IntN(60) {
			name := fmt.Sprintf("r%03d", i)
			rules = append(rules, Rule[string]{Name: name, Value: name, Path: Path{PathRegex, "/" + randomExpression(rng, 3)}})
		}
		table := mustTable(t, rules...)
		for range 100 {
			path := "/"
			for range rng.IntN(24) {
				path += []string{"a", "b", "A", "/", "é", "\uFFFD", "\xff"}[rng.IntN(7)]
			}
			want := ""
			for _, e := range table.exact.Get("").regexes {
				if e.regex.MatchString(path) {
					want = e.value
					matched++
					break
				}
			}
			if got, _ := table.Match(Request{Path: path}); got != want {
				t.Fatalf("%q: got %q, want %q", path, got, want)
			}
		}
	}
	if matched < 1000 {
		t.Errorf("only %d paths matched an expression, which shows little", matched)
	}
}

// An edit of a table updates its index.
func TestIndexFollowsEdits(t *testing.T) {
	rules := manyExpressions(20)
	table := mustTable(t, rules...)
	path := "/tenants/a/service-7/items/1"
	added := Rule[string]{Name: "0", Value: "added", Path: Path{PathRegex, "/tenants/a/service-7/items/[0-9]+"}}
	edited, err := table.Edit(nil, []Rule[string]{added})
	if err != nil {
		t.Fatal(err)
	}
	if got, _ := edited.Match(Request{Path: path}); got != "added" {
		t.Errorf("got %q after the addition", got)
	}
	removed, err := edited.Edit([]Rule[string]{added, rules[7]}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if got, ok := removed.Match(Request{Path: path}); ok {
		t.Errorf("got %q after the removal", got)
	}
}

// With a thousand expressions, a path tries only those whose text it contains, and
// tries each once.
func TestFewExpressionsAreTried(t *testing.T) {
	rules := manyExpressions(1000)
	table := mustTable(t, rules...)
	b := table.exact.Get("")
	for _, path := range []string{"/tenants/a/service-7/items/1", "/none", strings.Repeat("/service-7/", 500)} {
		tried := 0
		b.index.first(path, len(b.regexes), func(int) bool { tried++; return false })
		if tried > 120 { // "ice-7" has the grams of service-7, service-70, and service-700
			t.Errorf("%d expressions were tried for %.40q", tried, path)
		}
	}
	alloctest.Want(t, "match", 0, func() { table.Match(Request{Path: "/tenants/a/service-7/items/1"}) })
}

// Expressions beyond the bound of grams are tried for every path.
func TestExpressionsPastTheLimitOfGramsAreTriedForEveryPath(t *testing.T) {
	var all []*regex
	for i := range maxGrams + 10 {
		re, err := compileRegex(fmt.Sprintf("/%04x", i))
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, re)
	}
	x := newRegexIndex(len(all), func(i int) *regex { return all[i] })
	for i := range all {
		if got := x.first(fmt.Sprintf("/%04x", i), len(all), func(at int) bool { return all[at].MatchString(fmt.Sprintf("/%04x", i)) }); got != i {
			t.Fatalf("expression %d: found %d", i, got)
		}
	}
}

// manyExpressions returns rules with typical expressions for services.
func manyExpressions(n int) []Rule[string] {
	rules := make([]Rule[string], n)
	for i := range rules {
		rules[i] = Rule[string]{Name: fmt.Sprintf("r%04d", i), Value: fmt.Sprint(i), Path: Path{PathRegex, fmt.Sprintf("/tenants/[a-z]+/service-%d/items/[0-9]+", i)}}
	}
	return rules
}

// BenchmarkMatchExpressions measures the time to match one of many expressions.
func BenchmarkMatchExpressions(b *testing.B) {
	for _, n := range []int{10, 100, 1000} {
		table := mustTable(b, manyExpressions(n)...)
		for name, path := range map[string]string{"last": fmt.Sprintf("/tenants/acme/service-%d/items/17", n-1), "none": "/tenants/acme/other/items/17"} {
			b.Run(fmt.Sprintf("%d/%s", n, name), func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					table.Match(Request{Path: path})
				}
			})
		}
	}
}
