package limit

import (
	"fmt"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/drawbridge-gateway/drawbridge/bridge/alloctest"
)

var (
	alice = netip.MustParseAddr("192.0.2.1")
	bob   = netip.MustParseAddr("192.0.2.2")
	none  netip.Addr
)

// enter admits a request that ends at once.
func enter(l *Limiter, a netip.Addr, limits Limits) Refusal {
	var p Pass
	r := l.Enter(&p, a, time.Now(), &limits)
	p.Leave()
	return r
}

// taken returns how many requests are admitted now.
func taken(l *Limiter, a netip.Addr, limits Limits) (n int) {
	for enter(l, a, limits).Kind == None {
		n++
	}
	return n
}

func TestARateIsEnforcedExactly(t *testing.T) {
	for _, c := range []struct {
		rate  Rate
		burst int           // requests admitted at first
		after time.Duration // time until one more is admitted
	}{
		{Rate{Count: 1}, 1, time.Second},
		{Rate{Count: 10}, 10, 100 * time.Millisecond},
		{Rate{Count: 10, Burst: 1}, 1, 100 * time.Millisecond},
		{Rate{Count: 10, Burst: 25}, 25, 100 * time.Millisecond},
		{Rate{Count: 3, Period: time.Minute}, 3, 20 * time.Second},
		{Rate{Count: 3}, 3, time.Second / 3},
		{Rate{Count: 1, Period: time.Hour, Burst: 1000}, 1000, time.Hour},
		{Rate{Count: 5, Period: 2 * time.Nanosecond, Burst: 7}, 7, time.Nanosecond},
	} {
		for _, each := range []bool{false, true} {
			synctest.Test(t, func(t *testing.T) {
				limits, kind := Limits{Rate: c.rate}, OfRate
				if each {
					limits, kind = Limits{RatePerClient: c.rate}, OfRatePerClient
				}
				l := New()
				time.Sleep(time.Hour) // a pause saves no more than the burst
				if n := taken(l, alice, limits); n != c.burst {
					t.Fatalf("%+v: %d at once, want %d", c.rate, n, c.burst)
				}
				for range 3 {
					if r := enter(l, alice, limits); r.Kind != kind || r.Wait != c.after || r.Kind.PerClient() != each {
						t.Fatalf("%+v: %+v, want to wait %v", c.rate, r, c.after)
					}
					time.Sleep(c.after - 1)
					if r := enter(l, alice, limits); r.Kind != kind && c.after > 1 {
						t.Fatalf("%+v: a request was admitted too early", c.rate)
					}
					time.Sleep(time.Nanosecond)
					if n := taken(l, alice, limits); n != 1 {
						t.Fatalf("%+v: %d after %v, want 1", c.rate, n, c.after)
					}
				}
			})
		}
	}
}

// Over a long time, the admitted requests match the rate, in any pattern of
// arrival.
func TestTheRateHoldsOverALongTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, limits := New(), Limits{Rate: Rate{Count: 100, Burst: 20}}
		n := 0
		for i := range 10_000 {
			time.Sleep(time.Duration(1+i%7) * time.Millisecond)
			for range 1 + i%3 {
				if enter(l, none, limits).Kind == None {
					n++
				}
			}
		}
		if most := 20 + int(time.Since(l.began)*100/time.Second); n > most || n < most-1 {
			t.Errorf("%d were taken in %v, want %d", n, time.Since(l.began), most)
		}
	})
}

func TestConcurrentRequestsTakeExactlyTheRate(t *testing.T) {
	for name, limits := range map[string]Limits{
		"rate":                            {Rate: Rate{Count: 500, Period: time.Hour}},
		"rate of a client":                {RatePerClient: Rate{Count: 500, Period: time.Hour}},
		"at once":                         {AtOnce: 500},
		"concurrent requests of a client": {AtOncePerClient: 500},
	} {
		l, now := New(), time.Now()
		var all sync.WaitGroup
		var took atomic.Int64
		passes := make(chan *Pass, 8000)
		for range 8 {
			all.Go(func() {
				for range 1000 {
					p := new(Pass)
					if l.Enter(p, alice, now, &limits).Kind == None {
						took.Add(1)
						passes <- p
					}
				}
			})
		}
		all.Wait()
		close(passes)
		if took.Load() != 500 {
			t.Errorf("%s: %d were taken, want 500", name, took.Load())
		}
		for p := range passes {
			p.Leave()
			p.Leave()
		}
		if l.atOnce.Load() != 0 || len(l.shard(clientOf(alice)).atOnce) != 0 {
			t.Errorf("%s: a request is still in progress", name)
		}
		refused := uint64(0)
		for _, n := range l.Refused() {
			refused += n
		}
		if refused != 7500 {
			t.Errorf("%s: %v were refused", name, l.Refused())
		}
	}
}

func TestEachClientHasItsOwnLimits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, limits := New(), Limits{RatePerClient: Rate{Count: 2}, Rate: Rate{Count: 5}}
		if n := taken(l, alice, limits); n != 2 {
			t.Errorf("%d requests of the first client", n)
		}
		// A refused request of one client does not reduce the shared limits.
		if n := taken(l, bob, limits); n != 2 {
			t.Errorf("%d requests of the second client", n)
		}
		if n := taken(l, none, limits); n != 1 {
			t.Errorf("%d requests without an address", n)
		}
		if got, want := fmt.Sprint(l.Refused()), fmt.Sprint(map[Kind]uint64{AtOnce: 0, AtOncePerClient: 0, OfRate: 1, OfRatePerClient: 2}); got != want {
			t.Errorf("refused %s, want %s", got, want)
		}
	})
	for _, c := range []struct {
		a, b string
		same bool
	}{
		{"192.0.2.1", "192.0.2.1", true},
		{"192.0.2.1", "192.0.2.2", false},
		{"192.0.2.1", "::ffff:192.0.2.1", true},
		{"2001:db8::1", "2001:db8::ffff:ffff:ffff:ffff", true},
		{"2001:db8::1", "2001:db8:0:1::1", false},
		{"fe80::1%eth0", "fe80::1%eth1", true},
	} {
		if same := clientOf(netip.MustParseAddr(c.a)) == clientOf(netip.MustParseAddr(c.b)); same != c.same {
			t.Errorf("%s and %s are the same client: %v", c.a, c.b, same)
		}
	}
}

// Each client keeps its full rate while the shared limits refuse its requests.
func TestARefusalByASharedLimitDoesNotSpendTheClientsRate(t *testing.T) {
	each := Rate{Count: 3, Period: time.Hour}
	for name, c := range map[string]struct {
		limits Limits
		kind   Kind
	}{
		"at once": {Limits{AtOnce: 1, AtOncePerClient: 2, RatePerClient: each}, AtOnce},
		"rate":    {Limits{Rate: Rate{Count: 1, Period: 2 * time.Hour}, AtOncePerClient: 2, RatePerClient: each}, OfRate},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := New()
				var held Pass
				if r := l.Enter(&held, bob, time.Now(), &c.limits); r.Kind != None {
					t.Fatalf("the first request: %+v", r)
				}
				for range 10 {
					if r := enter(l, alice, c.limits); r.Kind != c.kind {
						t.Fatalf("with the shared limit reached: %+v", r)
					}
				}
				held.Leave()
				shared := c.limits
				shared.Rate = Rate{}
				if n := taken(l, alice, shared); n != each.Count {
					t.Errorf("%d of the client's %d requests are left", n, each.Count)
				}
				if r := enter(l, alice, shared); r.Kind != OfRatePerClient || r.Wait != 20*time.Minute {
					t.Errorf("after these: %+v", r)
				}
			})
		})
	}
}

// With any number of addresses, a bounded number is tracked, and the least
// recently seen are forgotten.
func TestTheNumberOfTrackedClientsIsBounded(t *testing.T) {
	l, limits, now := New(), Limits{RatePerClient: Rate{Count: 1, Period: time.Hour}}, time.Now()
	nth := func(i int) netip.Addr {
		return netip.AddrFrom16([16]byte{0x20, 1, byte(i >> 24), byte(i >> 16), byte(i >> 8), byte(i)})
	}
	try := func(a netip.Addr) Kind {
		var p Pass
		return l.Enter(&p, a, now, &limits).Kind
	}
	for i := range 3 * MaxClients {
		if k := try(nth(i)); k != None {
			t.Fatalf("client %d: %v at first", i, k)
		}
		if i%1000 == 0 && try(nth(0)) != OfRatePerClient {
			t.Fatalf("a client that keeps sending was forgotten after %d others", i)
		}
	}
	known := 0
	for i := range l.shards {
		s := &l.shards[i]
		if len(s.known) != perShard || len(s.rates) != perShard || cap(s.known) > 2*perShard {
			t.Errorf("a shard has %d in its list, room for %d, and %d in its map", len(s.known), cap(s.known), len(s.rates))
		}
		for k, n := s.newest, 0; k != noClient; k = s.known[k].older {
			if n++; n > perShard {
				t.Fatal("a list has no end")
			}
			known++
		}
	}
	if known != MaxClients {
		t.Errorf("%d are known, want %d", known, MaxClients)
	}
	if k := try(nth(3*MaxClients - 1)); k != OfRatePerClient {
		t.Errorf("the latest client is forgotten: %v", k)
	}
	if k := try(nth(1)); k != None {
		t.Errorf("the first client is not forgotten: %v", k)
	}
}

func TestLimitsCostNoAllocation(t *testing.T) {
	l, limits, now := New(), Limits{AtOnce: 1 << 30, AtOncePerClient: 1 << 30, Rate: Rate{Count: 1, Burst: 1 << 30}, RatePerClient: Rate{Count: 1, Burst: 1 << 30}}, time.Now()
	var p Pass
	l.Enter(&p, alice, now, &limits)
	alloctest.Want(t, "Enter and Leave", 0, func() {
		var p Pass
		if l.Enter(&p, alice, now, &limits).Kind != None {
			t.Fatal("refused")
		}
		p.Leave()
	})
	p.Leave()
}

func BenchmarkEnter(b *testing.B) {
	for name, limits := range map[string]Limits{
		"no limit":                {},
		"all together":            {AtOnce: 1 << 30, Rate: Rate{Count: 1, Burst: 1 << 30}},
		"of each client too":      {AtOnce: 1 << 30, AtOncePerClient: 1 << 30, Rate: Rate{Count: 1, Burst: 1 << 30}, RatePerClient: Rate{Count: 1, Burst: 1 << 30}},
		"rate of a single client": {RatePerClient: Rate{Count: 1, Burst: 1 << 30}},
	} {
		b.Run(name, func(b *testing.B) {
			l, now := New(), time.Now()
			b.ReportAllocs()
			for b.Loop() {
				var p Pass
				l.Enter(&p, alice, now, &limits)
				p.Leave()
			}
		})
	}
}
