package upstream_test

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"go.uber.org/goleak"

	"github.com/drawbridge-gateway/drawbridge/bridge/upstream"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func endpoint(address string, weight int) upstream.EndpointOptions {
	return upstream.EndpointOptions{Network: "tcp", Address: address, Weight: weight}
}

func addresses(order []*upstream.Endpoint) string {
	var all []string
	for _, e := range order {
		all = append(all, e.Address())
	}
	return strings.Join(all, " ")
}

func TestOrderChoosesBySmoothWeightedRoundRobin(t *testing.T) {
	for _, test := range []struct {
		name    string
		weights []int
		want    string
	}{
		{"equal weights take turns", []int{1, 1, 1}, "a b c a b c"},
		{"no weight is weight one", []int{0, 1}, "a b a b"},
		{"a heavy endpoint is not chosen in one go", []int{5, 1, 1}, "a a b a c a a"},
		{"the sequence repeats", []int{2, 1}, "a b a a b a"},
	} {
		t.Run(test.name, func(t *testing.T) {
			o := upstream.Options{Name: "u"}
			for i, w := range test.weights {
				o.Endpoints = append(o.Endpoints, endpoint(string(rune('a'+i)), w))
			}
			u := upstream.New(o)
			var got []string
			for range strings.Fields(test.want) {
				got = append(got, u.Order()[0].Address())
			}
			if s := strings.Join(got, " "); s != test.want {
				t.Errorf("chose %s, want %s", s, test.want)
			}
		})
	}
}

func TestOrderGoesOnToEveryOtherEndpoint(t *testing.T) {
	backup := endpoint("backup", 0)
	backup.Backup = true
	draining := endpoint("draining", 0)
	draining.Draining = true
	drainingBackup := draining
	drainingBackup.Backup = true
	for _, test := range []struct {
		name      string
		endpoints []upstream.EndpointOptions
		want      []string // of Order, call by call
	}{
		{"nothing from nothing", nil, []string{""}},
		{"one", []upstream.EndpointOptions{endpoint("a", 1)}, []string{"a", "a"}},
		{"those due next come first", []upstream.EndpointOptions{endpoint("a", 1), endpoint("b", 1), endpoint("c", 1)},
			[]string{"a b c", "b c a", "c a b"}},
		{"backups come last", []upstream.EndpointOptions{backup, endpoint("a", 1), endpoint("b", 1)},
			[]string{"a b backup", "b a backup"}},
		{"draining ones never", []upstream.EndpointOptions{draining, endpoint("a", 1), drainingBackup, backup},
			[]string{"a backup", "a backup"}},
		{"a lone backup serves", []upstream.EndpointOptions{draining, backup}, []string{"backup"}},
		{"all draining", []upstream.EndpointOptions{draining, drainingBackup}, []string{""}},
	} {
		t.Run(test.name, func(t *testing.T) {
			u := upstream.New(upstream.Options{Name: "u", Endpoints: test.endpoints})
			for i, want := range test.want {
				if got := addresses(u.Order()); got != want {
					t.Errorf("call %d: %q, want %q", i, got, want)
				}
			}
		})
	}
}

// However many ask at once, over whole rounds each endpoint is chosen exactly
// as often as its weight says.
func TestOrderIsExactUnderConcurrency(t *testing.T) {
	u := upstream.New(upstream.Options{Name: "u", Endpoints: []upstream.EndpointOptions{
		endpoint("a", 5), endpoint("b", 2), endpoint("c", 1),
	}})
	const goroutines, rounds = 8, 125
	var mu sync.Mutex
	chosen := map[string]int{}
	var wg sync.WaitGroup
	for range goroutines {
		wg.Go(func() {
			for range rounds {
				order := u.Order()
				if len(order) != 3 {
					t.Errorf("order of %d", len(order))
				}
				mu.Lock()
				chosen[order[0].Address()]++
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	if chosen["a"] != 625 || chosen["b"] != 250 || chosen["c"] != 125 {
		t.Errorf("chosen %v, want 5:2:1 of 1000", chosen)
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
						t.Fatalf("after %d picks thing %d was chosen %d times, want about %.1f", n, i, chosen[i], want)
					}
				}
			}
		})
	}
}

func TestSplitOfFewThings(t *testing.T) {
	for _, test := range []struct {
		name   string
		things []upstream.Weighted[string]
		want   string
	}{
		{"nothing", nil, ""},
		{"one without weight", []upstream.Weighted[string]{{Value: "a"}}, "a"},
		{"several without weight", []upstream.Weighted[string]{{Value: "a"}, {Value: "b"}}, ""},
		{"one with weight", []upstream.Weighted[string]{{Value: "a"}, {Value: "b", Weight: 1}}, "b"},
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

func BenchmarkOrder(b *testing.B) {
	for _, n := range []int{1, 2, 10, 100} {
		b.Run(fmt.Sprintf("endpoints=%d", n), func(b *testing.B) {
			o := upstream.Options{Name: "u"}
			for i := range n {
				o.Endpoints = append(o.Endpoints, endpoint(fmt.Sprint(i), 1+i%3))
			}
			u := upstream.New(o)
			b.ReportAllocs()
			for b.Loop() {
				u.Order()
			}
		})
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
