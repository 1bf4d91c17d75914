package exchange

import (
	"testing"
	"time"

	"github.com/drawbridge-gateway/drawbridge/bridge/upstream"
)

// newExchange returns an exchange whose request goes to an upstream, which may be
// nil.
func newExchange(t *testing.T, s *Shared, u *upstream.Upstream) *Exchange {
	s.Context = t.Context()
	x := &Exchange{}
	x.Init(s)
	if u != nil {
		x.try.upstream = idleUpstream{upstream: u}
	}
	return x
}

// A connector is an Upstream under another name, because idleUpstream has a
// method Upstream.
type connector = Upstream

// idleUpstream is an Upstream that never connects.
type idleUpstream struct {
	connector // nil
	upstream  *upstream.Upstream
}

func (o idleUpstream) Upstream() *upstream.Upstream { return o.upstream }

// A manualClock advances only when the test advances it.
type manualClock struct{ now int64 }

func (c *manualClock) Now() int64               { return c.now }
func (c *manualClock) Date() string             { return "" }
func (c *manualClock) KeepWithin(time.Duration) {}

// Only a pause in which nothing arrives is a stall. Neither the duration of the
// whole body nor the client's own pauses count.
func TestStallsAreRecognized(t *testing.T) {
	const idle = time.Hour // no timer fires
	clock := &manualClock{now: 1}
	x := newExchange(t, &Shared{Clock: clock}, upstream.New(upstream.Options{Name: "up", IdleTimeout: idle}))
	s := &x.stall
	defer s.end()
	pass := func(d time.Duration) {
		clock.now += int64(d)
		s.expired()
	}
	s.watch()
	s.unwatch()
	pass(1)
	for range 5 { // a body that comes in pieces
		s.watch()
		pass(idle * 9 / 10)
		s.unwatch()
	}
	pass(10 * idle) // while the client does not read
	if x.cancel.failed() {
		t.Fatal("an active response was cut off")
	}
	s.watch()
	pass(idle / 2)
	pass(idle / 2)
	if err := x.cancel.reason(); err != errStalled {
		t.Errorf("the stalled exchange was not cut off: %v", err)
	}
}

// Without a limit, reads are not watched.
func TestWithoutALimitNothingStalls(t *testing.T) {
	x := newExchange(t, &Shared{Clock: &manualClock{now: 1}}, upstream.New(upstream.Options{Name: "up"}))
	x.stall.watch()
	if x.stall.unwatch(); x.stall.timer != nil {
		t.Error("a timer was set without a limit")
	}
	x.stall.end()
}
