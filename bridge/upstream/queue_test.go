package upstream_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/drawbridge-gateway/drawbridge/bridge/upstream"
	"github.com/drawbridge-gateway/drawbridge/certs"
)

// limited returns an upstream with endpoints of equal weight.
func limited(endpoints int, l upstream.Limits) *upstream.Upstream {
	o := options(upstream.RoundRobin, many(endpoints))
	o.Limits = l
	return upstream.New(o)
}

// patient returns a wait function for Next that is bounded by ctx.
func patient(ctx context.Context) func() (context.Context, func()) {
	return func() (context.Context, func()) { return ctx, func() {} }
}

func begin(u *upstream.Upstream) *upstream.Turn {
	turn := new(upstream.Turn)
	turn.Begin(u, upstream.Key{})
	return turn
}

func mustNext(t testing.TB, turn *upstream.Turn) *upstream.Endpoint {
	t.Helper()
	e, err := turn.Next(nil)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func TestLimitsOfRequests(t *testing.T) {
	for _, test := range []struct {
		name string
		upstream.Limits
		fits int
	}{
		{"of the upstream", upstream.Limits{Requests: 3}, 3},
		{"of each endpoint", upstream.Limits{RequestsPerEndpoint: 2}, 4},
		{"of both", upstream.Limits{Requests: 3, RequestsPerEndpoint: 2}, 3},
	} {
		t.Run(test.name, func(t *testing.T) {
			u := limited(2, test.Limits)
			var held []*upstream.Turn
			for range test.fits {
				held = append(held, begin(u))
				mustNext(t, held[len(held)-1])
			}
			late := begin(u)
			_, err := late.Next(patient(t.Context()))
			if err != upstream.ErrOverloaded || upstream.ReasonOf(err) != certs.ReasonOverloaded {
				t.Errorf("a Turn above the limit: %v, %s", err, upstream.ReasonOf(err))
			}
			if l := u.Load(); l != (upstream.Load{InFlight: uint64(test.fits), Overloaded: 1}) {
				t.Errorf("load %+v", l)
			}
			held[0].End()
			held[0].End() // does nothing
			mustNext(t, late)
			late.End()
			for _, turn := range held {
				turn.End()
			}
			if l := u.Load(); l.InFlight != 0 {
				t.Errorf("load %+v at the end", l)
			}
		})
	}
}

func TestBackupsAreUsedOnlyWithoutAUsablePrimary(t *testing.T) {
	o := options(upstream.RoundRobin, many(3))
	o.Endpoints[2].Backup = true
	o.Limits.RequestsPerEndpoint = 1
	u := upstream.New(o)
	a, b, c, d := begin(u), begin(u), begin(u), begin(u)
	if got := mustNext(t, a).Address() + mustNext(t, b).Address() + mustNext(t, c).Address(); got != "012" {
		t.Errorf("went to %s, want both primaries and then the backup", got)
	}
	if _, err := d.Next(nil); err != upstream.ErrOverloaded {
		t.Errorf("with all full: %v", err)
	}
	a.End()
	if got := mustNext(t, d).Address(); got != "0" {
		t.Errorf("went to %s, though a primary has room again", got)
	}
	// A Turn that tried the endpoint with room is not sent there again.
	b.End()
	if got := mustNext(t, d).Address(); got != "1" {
		t.Errorf("moved to %s", got)
	}
	if _, err := d.Next(nil); err != upstream.ErrOverloaded {
		t.Errorf("with the backup full: %v", err)
	}
	c.End()
	mustNext(t, d)
	if _, err := d.Next(nil); err != upstream.ErrNoEndpoint || upstream.ReasonOf(err) != certs.ReasonNoEndpoint {
		t.Errorf("with all tried: %v", err)
	}
	d.End()
}

func TestTurnsWaitForRoomInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		u := limited(2, upstream.Limits{Requests: 2, Pending: 3})
		a, b := begin(u), begin(u)
		mustNext(t, a)
		mustNext(t, b)
		var order []int
		var wg sync.WaitGroup
		turns := []*upstream.Turn{begin(u), begin(u), begin(u)}
		for i, turn := range turns {
			wg.Go(func() {
				if _, err := turn.Next(patient(t.Context())); err != nil {
					t.Errorf("%d: %v", i, err)
				}
				order = append(order, i)
			})
			synctest.Wait()
		}
		if _, err := begin(u).Next(patient(t.Context())); err != upstream.ErrOverloaded {
			t.Errorf("with a full queue: %v", err)
		}
		if l := u.Load(); l != (upstream.Load{InFlight: 2, Pending: 3, Overloaded: 1}) {
			t.Errorf("load %+v", l)
		}
		for i, turn := range []*upstream.Turn{a, b, turns[0]} {
			turn.End()
			synctest.Wait()
			if len(order) != i+1 || order[i] != i {
				t.Fatalf("after %d have ended, %v were admitted", i+1, order)
			}
		}
		wg.Wait()
		turns[1].End()
		turns[2].End()
		if l := u.Load(); l.InFlight != 0 || l.Pending != 0 {
			t.Errorf("load %+v at the end", l)
		}
	})
}

func TestWaitingEnds(t *testing.T) {
	for _, test := range []struct {
		name   string
		limits upstream.Limits
		cancel bool // canceled after 2s
		after  time.Duration
		err    error
	}{
		{"after five seconds", upstream.Limits{}, false, 5 * time.Second, upstream.ErrOverloaded},
		{"after its timeout", upstream.Limits{PendingTimeout: 3 * time.Second}, false, 3 * time.Second, upstream.ErrOverloaded},
		{"when it is canceled", upstream.Limits{}, true, 2 * time.Second, context.Canceled},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := test.limits
				l.Requests, l.Pending = 1, 2
				u := limited(1, l)
				a := begin(u)
				mustNext(t, a)
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				if test.cancel {
					time.AfterFunc(2*time.Second, cancel)
				}
				began, asked, done := time.Now(), 0, 0
				turn := begin(u)
				_, err := turn.Next(func() (context.Context, func()) {
					asked++
					return ctx, func() { done++ }
				})
				if err != test.err || time.Since(began) != test.after || asked != 1 || done != 1 {
					t.Errorf("%v after %v, want %v after %v; wait was called %d times, done called %d times", err, time.Since(began), test.err, test.after, asked, done)
				}
				if l := u.Load(); l.Pending != 0 || (l.Overloaded == 1) == test.cancel {
					t.Errorf("load %+v", l)
				}
				turn.End()
				// The Turn's place in the queue is free, and so is its place at the
				// endpoint.
				a.End()
				last := begin(u)
				if _, err := last.Next(func() (context.Context, func()) { t.Error("wait was called"); return t.Context(), func() {} }); err != nil {
					t.Error(err)
				}
				last.End()
			})
		})
	}
}

// A Turn from the queue that found no connection gets its place back.
func TestATurnThatReturnsToTheQueueKeepsItsPlace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		u := limited(1, upstream.Limits{Requests: 1, Pending: 2})
		hold, first, second := begin(u), begin(u), begin(u)
		mustNext(t, hold)
		var served []string
		enter := func(name string, turn *upstream.Turn) {
			if _, err := turn.Next(patient(t.Context())); err != nil {
				name = err.Error()
			}
			served = append(served, name)
		}
		go enter("first", first)
		synctest.Wait()
		go enter("second", second)
		synctest.Wait()
		hold.End()
		synctest.Wait()
		first.Full()
		enter("first", first)
		first.End()
		synctest.Wait()
		second.End()
		if want := []string{"first", "first", "second"}; !slices.Equal(served, want) {
			t.Errorf("served %v, want %v", served, want)
		}
	})
}

// The waiting time of a Turn is bounded in total, even if it waits several
// times.
func TestTimeInTheQueueIsAddedUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		u := limited(2, upstream.Limits{RequestsPerEndpoint: 1, Pending: 1, PendingTimeout: 10 * time.Second})
		a, b, turn := begin(u), begin(u), begin(u)
		mustNext(t, a)
		mustNext(t, b)
		time.AfterFunc(6*time.Second, a.End)
		began := time.Now()
		if _, err := turn.Next(patient(t.Context())); err != nil || time.Since(began) != 6*time.Second {
			t.Errorf("%v after %v", err, time.Since(began))
		}
		time.Sleep(time.Minute) // time at the endpoint does not count as waiting
		began = time.Now()
		if _, err := turn.Next(patient(t.Context())); err != upstream.ErrOverloaded || time.Since(began) != 4*time.Second {
			t.Errorf("%v after %v, want that it is overloaded after 4s", err, time.Since(began))
		}
		turn.End()
		b.End()
	})
}

// An actor is a Turn and the goroutine that uses it.
type actor struct {
	turn   upstream.Turn
	cancel context.CancelFunc
	do     chan func()
	name   int
	place  int  // its position in the queue: lower numbers come first
	served bool // the actor was at an endpoint before
	waits  bool
	ended  bool
	at     *upstream.Endpoint
	was    []*upstream.Endpoint
}

// A stage has actors that each do one thing at a time. After each step, when
// every actor is done or waits, the state must be valid.
type stage struct {
	testing.TB
	u      *upstream.Upstream
	limits upstream.Limits
	actors []*actor
	places int
}

func (s *stage) next(a *actor) {
	if a.at != nil {
		a.was = append(a.was, a.at)
	}
	a.at, a.waits = nil, true
	ctx, cancel := context.WithCancel(context.Background())
	a.cancel = cancel
	a.do <- func() {
		defer cancel()
		e, err := a.turn.Next(patient(ctx))
		a.at, a.waits = e, false
		if err != nil {
			a.turn.End()
			a.ended = true
			if !errors.Is(err, context.Canceled) && err != upstream.ErrOverloaded && err != upstream.ErrNoEndpoint {
				s.Errorf("actor %d: %v", a.name, err)
			}
		}
	}
}

func (s *stage) enter() {
	a := &actor{do: make(chan func()), name: len(s.actors)}
	a.turn.Begin(s.u, keyOf(len(s.actors)))
	s.actors = append(s.actors, a)
	go func() {
		for do := range a.do {
			do()
		}
	}()
	s.next(a)
}

// some returns one of the actors for which is holds, or nil.
func (s *stage) some(n byte, is func(*actor) bool) *actor {
	var all []*actor
	for _, a := range s.actors {
		if is(a) {
			all = append(all, a)
		}
	}
	if len(all) == 0 {
		return nil
	}
	return all[int(n)%len(all)]
}

// play performs the step that a byte encodes.
func (s *stage) play(b byte) {
	waited := map[*actor]bool{}
	for _, a := range s.actors {
		waited[a], a.served = a.waits, a.served || a.at != nil
	}
	isAt := func(a *actor) bool { return a.at != nil }
	switch n := b / 8; b % 8 {
	case 0, 1, 2:
		s.enter()
	case 3, 4:
		if a := s.some(n, isAt); a != nil {
			a.do <- func() { a.turn.End(); a.ended, a.at = true, nil }
		}
	case 5:
		if a := s.some(n, isAt); a != nil {
			s.next(a)
		}
	case 6:
		if a := s.some(n, func(a *actor) bool { return a.waits }); a != nil {
			a.cancel()
		}
	case 7:
		if a := s.some(n, isAt); a != nil {
			a.do <- func() { a.turn.Full(); a.at = nil }
			synctest.Wait()
			s.next(a)
		}
	}
	synctest.Wait()
	s.check(waited)
}

func (s *stage) check(waited map[*actor]bool) {
	at, total, waiting, back := map[*upstream.Endpoint]int{}, 0, 0, 0
	for _, a := range s.actors {
		if a.at != nil {
			at[a.at]++
			total++
			if slices.Contains(a.was, a.at) {
				s.Fatalf("actor %d was sent to the same endpoint twice", a.name)
			}
		}
		if a.waits {
			if a.place == 0 {
				s.places++
				a.place = s.places
			}
			waiting++
			if a.served {
				back++ // may have been in the queue before
			}
		}
	}
	full := func(e *upstream.Endpoint) bool {
		return s.limits.RequestsPerEndpoint > 0 && at[e] >= s.limits.RequestsPerEndpoint
	}
	for e, n := range at {
		if s.limits.RequestsPerEndpoint > 0 && n > s.limits.RequestsPerEndpoint {
			s.Fatalf("%d at endpoint %s, more than %d", n, e.Address(), s.limits.RequestsPerEndpoint)
		}
	}
	if s.limits.Requests > 0 && total > s.limits.Requests {
		s.Fatalf("%d at endpoints, more than %d", total, s.limits.Requests)
	}
	if l := s.u.Load(); int(l.InFlight) != total || int(l.Pending) != waiting {
		s.Fatalf("load %+v, but %d are at endpoints and %d wait", l, total, waiting)
	}
	if waiting > s.limits.Pending+back {
		s.Fatalf("%d wait, more than %d", waiting, s.limits.Pending)
	}
	for _, a := range s.actors {
		// A waiting Turn has no endpoint that it could use.
		if a.waits && (s.limits.Requests == 0 || total < s.limits.Requests) {
			for _, e := range s.u.Endpoints() {
				if !full(e) && !slices.Contains(a.was, e) {
					s.Fatalf("actor %d waits, though endpoint %s has room", a.name, e.Address())
				}
			}
		}
		// Turns that had no endpoint yet do not overtake each other.
		for _, b := range s.actors {
			if a.waits && waited[a] && !a.served && b.at != nil && waited[b] && !b.served && b.place > a.place {
				s.Fatalf("actor %d went before actor %d", b.name, a.name)
			}
		}
	}
}

// perform lets actors perform the steps of the bytes, and then ends all actors.
func perform(t *testing.T, script []byte) {
	if len(script) < 4 {
		return
	}
	synctest.Test(t, func(t *testing.T) {
		l := upstream.Limits{
			Requests: int(script[0] % 6), RequestsPerEndpoint: int(script[1] % 4), Pending: int(script[2] % 8), PendingTimeout: time.Hour,
		}
		o := options(policies[script[3]%4].Policy, many(1+int(script[3]/4%3)))
		o.Limits = l
		s := &stage{TB: t, u: upstream.New(o), limits: l}
		defer func() {
			for _, a := range s.actors {
				a.cancel()
				synctest.Wait()
				close(a.do)
			}
		}()
		for _, b := range script[4:min(len(script), 100)] {
			s.play(b)
		}
		for range s.actors {
			for s.some(0, func(a *actor) bool { return a.at != nil }) != nil {
				s.play(3)
			}
		}
		if left := s.some(0, func(a *actor) bool { return !a.ended }); left != nil {
			t.Fatalf("actor %d still waits when no Turn has an endpoint", left.name)
		}
		if l := s.u.Load(); l.InFlight != 0 || l.Pending != 0 {
			t.Fatalf("load %+v at the end", l)
		}
	})
}

func TestQueueInvariants(t *testing.T) {
	for seed := range uint64(150) {
		random := rand.New(rand.NewPCG(seed, 1))
		script := make([]byte, 80)
		for i := range script {
			script[i] = byte(random.Uint32())
		}
		if perform(t, script); t.Failed() {
			t.Fatalf("seed %d: script %v", seed, script)
		}
	}
}

func FuzzQueue(f *testing.F) {
	f.Add([]byte{2, 1, 3, 4, 0, 0, 0, 0, 3, 5, 6, 7})
	f.Fuzz(perform)
}

// Many concurrent Turns come, wait, cancel, retry and leave: no limit is
// exceeded even briefly, no Turn waits forever, and no state is left behind.
func TestQueueUnderConcurrency(t *testing.T) {
	const actors, rounds = 40, 200
	l := upstream.Limits{Requests: 6, RequestsPerEndpoint: 3, Pending: actors, PendingTimeout: time.Hour}
	o := options(upstream.LeastRequests, many(3))
	o.Limits = l
	u := upstream.New(o)
	var at [3]atomic.Int64
	var total atomic.Int64
	var served, gaveUp atomic.Int64
	index := map[*upstream.Endpoint]int{}
	for i, e := range u.Endpoints() {
		index[e] = i
	}
	var wg sync.WaitGroup
	for n := range actors {
		wg.Go(func() {
			random := rand.New(rand.NewPCG(uint64(n), 2))
			var turn upstream.Turn
			for range rounds {
				ctx, cancel := context.WithCancel(t.Context())
				if random.IntN(10) == 0 {
					go func() { runtime.Gosched(); cancel() }()
				}
				turn.Begin(u, upstream.Key{})
				for range 1 + random.IntN(3) {
					e, err := turn.Next(patient(ctx))
					if err != nil {
						if err != context.Canceled {
							t.Errorf("Next: %v", err)
						}
						gaveUp.Add(1)
						break
					}
					if at[index[e]].Add(1) > 3 || total.Add(1) > 6 {
						t.Error("a limit is passed")
					}
					for range random.IntN(5) {
						runtime.Gosched()
					}
					at[index[e]].Add(-1)
					total.Add(-1)
					served.Add(1)
				}
				turn.End()
				cancel()
			}
		})
	}
	wg.Wait()
	if l := u.Load(); l.InFlight != 0 || l.Pending != 0 || l.Overloaded != 0 {
		t.Errorf("load %+v at the end", l)
	}
	t.Logf("%d were served, %d gave up", served.Load(), gaveUp.Load())
}

// BenchmarkTurnWithLimits measures a request with limits, and one that waits
// for another.
func BenchmarkTurnWithLimits(b *testing.B) {
	for name, l := range map[string]upstream.Limits{
		"requests":    {Requests: 1000, RequestsPerEndpoint: 100, Pending: 100},
		"connections": {Connections: 1000, ConnectionsPerEndpoint: 100, Pending: 100},
		"waiting":     {Requests: 1, Pending: 1000},
	} {
		b.Run(name, func(b *testing.B) {
			u := limited(3, l)
			b.ReportAllocs()
			b.SetParallelism(4)
			b.RunParallel(func(pb *testing.PB) {
				turn := new(upstream.Turn)
				wait := patient(b.Context())
				for pb.Next() {
					turn.Begin(u, upstream.Key{})
					if _, err := turn.Next(wait); err != nil {
						b.Fatal(err)
					}
					turn.End()
				}
			})
		})
	}
}
