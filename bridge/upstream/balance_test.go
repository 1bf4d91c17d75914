package upstream_test

import (
	"context"
	"fmt"
	"math"
	"net/netip"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/drawbridge-gateway/drawbridge/bridge/alloctest"
	"github.com/drawbridge-gateway/drawbridge/bridge/upstream"
)

var policies = []struct {
	name string
	upstream.Policy
}{
	{"ROUND_ROBIN", upstream.RoundRobin},
	{"LEAST_REQUESTS", upstream.LeastRequests},
	{"RANDOM", upstream.Random},
	{"CONSISTENT_HASH", upstream.ConsistentHash},
}

// options returns an upstream with endpoints of the given weights, whose
// addresses are "0", "1" and so on.
func options(p upstream.Policy, weights []int) upstream.Options {
	o := upstream.Options{Name: "u", Policy: p}
	for i, w := range weights {
		o.Endpoints = append(o.Endpoints, endpoint(strconv.Itoa(i), w))
	}
	return o
}

// choose returns the first endpoint of a Turn with a key.
func choose(t testing.TB, u *upstream.Upstream, key upstream.Key) string {
	var turn upstream.Turn
	turn.Begin(u, key)
	defer turn.End()
	e, err := turn.Next(nil)
	if err != nil {
		t.Fatal(err)
	}
	return e.Address()
}

func keyOf(n int) upstream.Key { return upstream.KeyOf("client-" + strconv.Itoa(n)) }

func TestRoundRobinIsSmooth(t *testing.T) {
	for _, test := range []struct {
		name    string
		weights []int
		want    string
	}{
		{"equal weights take turns", []int{1, 1, 1}, "0 1 2 0 1 2"},
		{"a missing weight counts as 1", []int{0, 1}, "0 1 0 1"},
		{"a heavy endpoint is not chosen several times in a row", []int{5, 1, 1}, "0 0 1 0 2 0 0"},
		{"weights count by their ratio", []int{500, 100, 100}, "0 0 1 0 2 0 0"},
		{"the sequence repeats", []int{2, 1}, "0 1 0 0 1 0"},
	} {
		t.Run(test.name, func(t *testing.T) {
			u := upstream.New(options(upstream.RoundRobin, test.weights))
			var got []string
			for range strings.Fields(test.want) {
				got = append(got, choose(t, u, upstream.Key{}))
			}
			if s := strings.Join(got, " "); s != test.want {
				t.Errorf("chose %s, want %s", s, test.want)
			}
		})
	}
}

// Over whole rounds, each endpoint is chosen exactly as often as its weight
// says, even under concurrency.
func TestRoundRobinIsExactUnderConcurrency(t *testing.T) {
	u := upstream.New(options(upstream.RoundRobin, []int{5, 2, 1}))
	const goroutines, rounds = 8, 125
	var mu sync.Mutex
	chosen := map[string]int{}
	var wg sync.WaitGroup
	for range goroutines {
		wg.Go(func() {
			for range rounds {
				e := choose(t, u, upstream.Key{})
				mu.Lock()
				chosen[e]++
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	if chosen["0"] != 625 || chosen["1"] != 250 || chosen["2"] != 125 {
		t.Errorf("chosen %v, want 5:2:1 of 1000", chosen)
	}
}

const picks = 100_000

// Every policy spreads 100,000 picks by the weights: round robin to within two,
// the others to within five standard deviations of chance.
func TestPoliciesSpreadByWeight(t *testing.T) {
	many := make([]int, 100)
	for i := range many {
		many[i] = 1 + i%4
	}
	for _, p := range policies {
		for _, weights := range [][]int{{1, 1, 1}, {5, 1, 1}, {1, 2, 3, 4}, {65535, 1}, {65535, 65534, 7}, many} {
			u := upstream.New(options(p.Policy, weights))
			chosen := make([]int, len(weights))
			for n := range picks {
				i, _ := strconv.Atoi(choose(t, u, keyOf(n)))
				chosen[i]++
			}
			total := 0
			for _, w := range weights {
				total += w
			}
			worst := 0.0 // the worst deviation, in standard deviations
			for i, w := range weights {
				share := float64(w) / float64(total)
				want := share * picks
				deviation := math.Sqrt(want * (1 - share))
				if p.Policy == upstream.ConsistentHash {
					// Keys and slots are distributed at random.
					deviation = math.Sqrt(deviation*deviation + picks*picks*share*(1-share)/(1<<16))
				}
				off := math.Abs(float64(chosen[i]) - want)
				if p.Policy == upstream.RoundRobin {
					// Weights are exact to one part in 65,536.
					if off > 2+picks/65536.0 {
						t.Errorf("%s %v: endpoint %d was chosen %d times, want %.1f", p.name, weights, i, chosen[i], want)
					}
				} else if off > 5*deviation+1 {
					t.Errorf("%s %v: endpoint %d was chosen %d times, want %.1f", p.name, weights, i, chosen[i], want)
				}
				worst = max(worst, off/deviation)
			}
			if len(weights) > 10 {
				t.Logf("%-15s 100 endpoints of weights 1 to 4: worst is off by %.1f standard deviations of chance", p.name, worst)
			} else {
				t.Logf("%-15s weights %v: %v", p.name, weights, chosen)
			}
		}
	}
}

// The turns of an unavailable endpoint go to the others evenly, by their
// weights.
func TestTheShareOfAnUnavailableEndpointGoesToTheOthersByWeight(t *testing.T) {
	for _, p := range policies {
		o := options(p.Policy, []int{4, 1, 2, 3})
		o.Limits.RequestsPerEndpoint = 1
		u := upstream.New(o)
		busy := hold(t, u, "0")
		chosen := map[string]int{}
		for n := range picks {
			chosen[choose(t, u, keyOf(n))]++
		}
		busy.End()
		t.Logf("%-15s weights 1 2 3, and 4 that is busy: %v", p.name, chosen)
		for i := 1; i <= 3; i++ {
			if got, want := chosen[strconv.Itoa(i)], picks*i/6; math.Abs(float64(got-want)) > 800 {
				t.Errorf("%s: endpoint %d was chosen %d times, want about %d", p.name, i, got, want)
			}
		}
	}
}

// hold returns a Turn that has an endpoint.
func hold(t testing.TB, u *upstream.Upstream, address string) *upstream.Turn {
	turn := new(upstream.Turn)
	for n := range 10_000 {
		turn.Begin(u, keyOf(n))
		if e, err := turn.Next(nil); err == nil && e.Address() == address {
			return turn
		}
		turn.End()
	}
	t.Fatalf("endpoint %s is never chosen", address)
	return nil
}

// With long requests, LEAST_REQUESTS loads endpoints by their weights, while
// RANDOM overloads a slow endpoint.
func TestLeastRequestsEvensOutTheLoad(t *testing.T) {
	for _, p := range []upstream.Policy{upstream.LeastRequests, upstream.Random} {
		u := upstream.New(options(p, []int{1, 1, 2, 4}))
		slow := u.Endpoints()[0]
		// Whenever a request begins, the oldest request at another endpoint ends. At
		// the slow endpoint, only every twentieth start ends one.
		var held, stuck []*upstream.Turn
		for n := range 20_000 {
			turn := new(upstream.Turn)
			turn.Begin(u, upstream.Key{})
			e, err := turn.Next(nil)
			if err != nil {
				t.Fatal(err)
			}
			if e == slow {
				stuck = append(stuck, turn)
			} else {
				held = append(held, turn)
			}
			if len(held) > 140 {
				held[0].End()
				held = held[1:]
			}
			if n%20 == 0 && len(stuck) > 0 {
				stuck[0].End()
				stuck = stuck[1:]
			}
		}
		var busy []uint64
		for _, s := range u.Status() {
			busy = append(busy, s.InFlight)
		}
		t.Logf("%v: weights 1 1 2 4, the first one slow: in flight %v", map[upstream.Policy]string{upstream.LeastRequests: "LEAST_REQUESTS", upstream.Random: "RANDOM"}[p], busy)
		if p == upstream.LeastRequests && (busy[0] > 40 || busy[1] > 40 || busy[3] < 60) {
			t.Errorf("in flight %v, want about 20 20 40 80", busy)
		}
		if p == upstream.Random && busy[0] < 1000 {
			t.Errorf("in flight %v: the load is too even for this test", busy)
		}
		for _, turn := range append(held, stuck...) {
			turn.End()
		}
		if l := u.Load(); l.InFlight != 0 {
			t.Errorf("%d in flight at the end", l.InFlight)
		}
	}
}

// When an endpoint leaves, only its own keys move, to the other endpoints by
// their weights. When it returns, the keys return. This holds for any weights.
func TestConsistentHashMovesFewKeys(t *testing.T) {
	for _, weights := range [][]int{{1, 1, 1}, {5, 1, 1}, {100, 50, 30, 20}, many(10), many(100), many(300)} {
		o := options(upstream.ConsistentHash, weights)
		all := upstream.New(o)
		left := o
		left.Endpoints = o.Endpoints[1:]
		without := upstream.New(left)
		moved, others := 0, 0
		for n := range picks {
			before, after := choose(t, all, keyOf(n)), choose(t, without, keyOf(n))
			if before == "0" {
				moved++
			} else if before != after {
				others++
			}
		}
		total := 0
		for _, w := range weights {
			total += w
		}
		t.Logf("%4d endpoints: one with %5.2f%% of the weight leaves: %5.2f%% of the keys move, %d that were not its own",
			len(weights), 100*float64(weights[0])/float64(total), 100*float64(moved)/picks, others)
		if others != 0 {
			t.Errorf("%d keys moved from endpoints that stayed", others)
		}
	}
}

func many(n int) []int {
	weights := make([]int, n)
	for i := range weights {
		weights[i] = 1
	}
	return weights
}

// When a key's first endpoint leaves, its second endpoint becomes the first.
func TestConsistentHashMovesToTheNextOwner(t *testing.T) {
	o := options(upstream.ConsistentHash, many(20))
	u := upstream.New(o)
	for n := range 1000 {
		var turn upstream.Turn
		turn.Begin(u, keyOf(n))
		first, _ := turn.Next(nil)
		second, err := turn.Next(nil)
		turn.End()
		if err != nil {
			t.Fatal(err)
		}
		left := options(upstream.ConsistentHash, nil)
		for _, e := range o.Endpoints {
			if e.Address != first.Address() {
				left.Endpoints = append(left.Endpoints, e)
			}
		}
		if want := choose(t, upstream.New(left), keyOf(n)); second.Address() != want {
			t.Fatalf("key %d moves to %s, want %s", n, second.Address(), want)
		}
	}
}

// Two processes find the same endpoint for a key, for any order of their
// endpoints.
func TestConsistentHashIsTheSameEverywhere(t *testing.T) {
	o := options(upstream.ConsistentHash, []int{3, 1, 2, 1, 1, 1, 1, 1, 1, 1})
	a := upstream.New(o)
	for i, j := 0, len(o.Endpoints)-1; i < j; i, j = i+1, j-1 {
		o.Endpoints[i], o.Endpoints[j] = o.Endpoints[j], o.Endpoints[i]
	}
	b := upstream.New(o)
	for n := range 10_000 {
		if x, y := choose(t, a, keyOf(n)), choose(t, b, keyOf(n)); x != y {
			t.Fatalf("key %d belongs to %s and to %s", n, x, y)
		}
	}
	// The hash values are part of the contract: a change would move every key.
	if got := choose(t, a, upstream.KeyOf("alice")) + choose(t, a, upstream.KeyOf("bob")) + choose(t, a, upstream.KeyOf("carol")); got != "873" {
		t.Errorf("alice, bob and carol go to %q", got)
	}
}

func TestAnAddressHasOneKey(t *testing.T) {
	want := upstream.KeyOf("192.0.2.1")
	for _, a := range []string{"192.0.2.1", "::ffff:192.0.2.1"} {
		if got := upstream.KeyOfAddress(netip.MustParseAddr(a)); got != want {
			t.Errorf("%s: %v, want %v", a, got, want)
		}
	}
	if upstream.KeyOfAddress(netip.MustParseAddr("fe80::1%eth0")) != upstream.KeyOf("fe80::1") {
		t.Error("the zone counts")
	}
	if upstream.KeyOfAddress(netip.Addr{}).Known {
		t.Error("no address has a key")
	}
}

// A Turn without a key may use any endpoint.
func TestConsistentHashWithoutAKeyIsRandom(t *testing.T) {
	u := upstream.New(options(upstream.ConsistentHash, many(4)))
	chosen := map[string]int{}
	for range picks {
		chosen[choose(t, u, upstream.KeyOf(""))]++
	}
	for i := range 4 {
		if n := chosen[strconv.Itoa(i)]; n < 24_000 || n > 26_000 {
			t.Errorf("chosen %v", chosen)
		}
	}
}

// A request costs no allocation with any policy, even if it tries eight
// endpoints.
func TestTurnDoesNotAllocate(t *testing.T) {
	wait := func() (context.Context, func()) { return context.Background(), func() {} }
	for _, p := range policies {
		for _, limits := range []upstream.Limits{{}, {Requests: 5, RequestsPerEndpoint: 5, Connections: 50, ConnectionsPerEndpoint: 5, Pending: 5}} {
			o := options(p.Policy, many(20))
			o.Limits = limits
			u := upstream.New(o)
			turn, n := new(upstream.Turn), 0
			alloctest.Want(t, p.name, 0, func() {
				n++
				turn.Begin(u, upstream.Key{Hash: uint64(n) << 48, Known: true})
				for range 9 { // the ninth call finds no further endpoint
					if _, err := turn.Next(wait); err != nil {
						t.Fatal(err)
					}
				}
				turn.End()
			})
		}
	}
}

// A group of 1,000 endpoints uses a bounded amount of memory.
func TestMemoryOfAGroup(t *testing.T) {
	if alloctest.Race {
		t.Skip("the race detector's memory is in the sum")
	}
	for _, p := range policies {
		o := options(p.Policy, many(1000))
		weighted := options(p.Policy, nil)
		for i := range 1000 {
			weighted.Endpoints = append(weighted.Endpoints, endpoint(strconv.Itoa(i), 1+i*65))
		}
		for name, o := range map[string]upstream.Options{"equal weights": o, "all weights": weighted} {
			before := heap()
			u := upstream.New(o)
			size := (heap() - before) >> 10
			t.Logf("%-15s 1000 endpoints, %s: %d KiB", p.name, name, size)
			if size > 2048 {
				t.Errorf("%d KiB", size)
			}
			runtime.KeepAlive(u)
		}
	}
}

func heap() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// BenchmarkTurn measures one request through an upstream: Begin, Next, End.
func BenchmarkTurn(b *testing.B) {
	for _, p := range policies {
		for _, n := range []int{3, 100, 1000} {
			b.Run(fmt.Sprintf("%s/endpoints=%d", p.name, n), func(b *testing.B) {
				u := upstream.New(options(p.Policy, many(n)))
				b.ReportAllocs()
				b.RunParallel(func(pb *testing.PB) {
					turn, k := new(upstream.Turn), uint64(0)
					for pb.Next() {
						k += 0x9E3779B97F4A7C15
						turn.Begin(u, upstream.Key{Hash: k, Known: true})
						if _, err := turn.Next(nil); err != nil {
							b.Fatal(err)
						}
						turn.End()
					}
				})
			})
		}
	}
}

// BenchmarkTurnPastABusyEndpoint is the same with a first choice at its limit.
func BenchmarkTurnPastABusyEndpoint(b *testing.B) {
	for _, p := range policies {
		for _, n := range []int{3, 100, 1000} {
			b.Run(fmt.Sprintf("%s/endpoints=%d", p.name, n), func(b *testing.B) {
				u := upstream.New(options(p.Policy, many(n)))
				turn := new(upstream.Turn)
				b.ReportAllocs()
				for k := uint64(0); b.Loop(); k += 0x9E3779B97F4A7C15 {
					turn.Begin(u, upstream.Key{Hash: k, Known: true})
					for range 2 {
						if _, err := turn.Next(nil); err != nil {
							b.Fatal(err)
						}
					}
					turn.End()
				}
			})
		}
	}
}

// BenchmarkNew makes an upstream whose weights are the most expensive to
// order.
func BenchmarkNew(b *testing.B) {
	for _, n := range []int{3, 100, 1000} {
		var weights []int
		for i := range n {
			weights = append(weights, 1+i*65)
		}
		o := options(upstream.RoundRobin, weights)
		b.Run(fmt.Sprintf("endpoints=%d", n), func(b *testing.B) {
			for b.Loop() {
				upstream.New(o)
			}
		})
	}
}
