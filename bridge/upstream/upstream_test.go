package upstream_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/drawbridge-gateway/drawbridge/bridge/upstream"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func endpoint(address string, weight int) upstream.EndpointOptions {
	return upstream.EndpointOptions{Network: "tcp", Address: address, Weight: weight}
}

// visits returns the endpoints of one Turn, in order, until none is left.
func visits(u *upstream.Upstream) string {
	var t upstream.Turn
	t.Begin(u, upstream.Key{})
	defer t.End()
	var all []string
	for {
		e, err := t.Next(nil)
		if err != nil {
			return strings.Join(all, " ")
		}
		all = append(all, e.Address())
	}
}

func TestTurnTriesEveryOtherEndpoint(t *testing.T) {
	backup := endpoint("backup", 0)
	backup.Backup = true
	draining := endpoint("draining", 0)
	draining.Draining = true
	drainingBackup := draining
	drainingBackup.Backup = true
	for _, test := range []struct {
		name      string
		endpoints []upstream.EndpointOptions
		want      []string // Turn by Turn
	}{
		{"no endpoints", nil, []string{""}},
		{"one endpoint", []upstream.EndpointOptions{endpoint("a", 1)}, []string{"a", "a"}},
		{"each Turn begins with another endpoint", []upstream.EndpointOptions{endpoint("a", 1), endpoint("b", 1)}, []string{"a b", "b a", "a b"}},
		{"backups come last", []upstream.EndpointOptions{backup, endpoint("a", 1), endpoint("b", 1)},
			[]string{"a b backup", "b a backup"}},
		{"draining endpoints are never used", []upstream.EndpointOptions{draining, endpoint("a", 1), drainingBackup, backup},
			[]string{"a backup", "a backup"}},
		{"a lone backup serves", []upstream.EndpointOptions{draining, backup}, []string{"backup"}},
		{"all draining", []upstream.EndpointOptions{draining, drainingBackup}, []string{""}},
	} {
		t.Run(test.name, func(t *testing.T) {
			u := upstream.New(upstream.Options{Name: "u", Endpoints: test.endpoints})
			for i, want := range test.want {
				if got := visits(u); got != want {
					t.Errorf("Turn %d: %q, want %q", i, got, want)
				}
			}
		})
	}
}

// With any number of endpoints and any policy, a Turn tries each once.
func TestTurnTriesEachEndpointOnce(t *testing.T) {
	for _, p := range policies {
		u := upstream.New(options(p.Policy, make([]int, 40)))
		got := strings.Fields(visits(u))
		slices.Sort(got)
		if unique := slices.Compact(slices.Clone(got)); len(got) != 40 || len(unique) != 40 {
			t.Errorf("%s: %d visits, to %d endpoints", p.name, len(got), len(unique))
		}
	}
}

func TestSplitSpreadsByWeight(t *testing.T) {
	for _, weights := range [][]int{{1, 1}, {1, 2, 3}, {90, 10}, {65535, 1}, {0, 1, 0}, {5, 0, 5, 7, 1}} {
		t.Run(fmt.Sprint(weights), func(t *testing.T) {
			var things []upstream.Weighted[int]
			total := 0
			for i, w := range weights {
				things = append(things, upstream.Weighted[int]{Value: i, Weight: w})
				total += w
			}
			s := upstream.NewSplit(things)
			chosen := make([]int, len(weights))
			for n := 1; n <= 10000; n++ {
				chosen[s.Pick()]++
				for i, w := range weights {
					want := float64(n) * float64(w) / float64(total)
					if off := float64(chosen[i]) - want; off > 5 || off < -5 {
						t.Fatalf("after %d picks value %d was chosen %d times, want about %.1f", n, i, chosen[i], want)
					}
				}
			}
		})
	}
}

func TestSplitOfFewValues(t *testing.T) {
	for _, test := range []struct {
		name   string
		things []upstream.Weighted[string]
		want   string
	}{
		{"no value", nil, ""},
		{"one value without weight", []upstream.Weighted[string]{{Value: "a"}}, "a"},
		{"several values without weight", []upstream.Weighted[string]{{Value: "a"}, {Value: "b"}}, ""},
		{"one value with weight", []upstream.Weighted[string]{{Value: "a"}, {Value: "b", Weight: 1}}, "b"},
	} {
		t.Run(test.name, func(t *testing.T) {
			if got := upstream.NewSplit(test.things).Pick(); got != test.want {
				t.Errorf("picked %q, want %q", got, test.want)
			}
		})
	}
	var none *upstream.Split[string]
	if none.Pick() != "" || none.Values() != nil {
		t.Error("a nil Split is not empty")
	}
	if v := upstream.NewSplit([]upstream.Weighted[string]{{"a", 1}, {"b", 0}, {"c", 2}}).Values(); !slices.Equal(v, []string{"a", "c"}) {
		t.Errorf("Values = %v", v)
	}
}

func BenchmarkPick(b *testing.B) {
	s := upstream.NewSplit([]upstream.Weighted[int]{{1, 90}, {2, 9}, {3, 1}})
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			s.Pick()
		}
	})
}
