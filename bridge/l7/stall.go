package l7

import (
	"sync/atomic"
	"time"

	"github.com/drawbridge-gateway/drawbridge/certs"
)

// errStalled ends a response of which nothing came for as long as its upstream may
// take for it.
var errStalled = &certs.VerifyError{Reason: certs.ReasonResponseTimeout, Detail: "nothing more of the response came in time"}

// A stall is what watches over the reading of a response's body, if its upstream
// has an IdleTimeout. Time in which the client takes nothing does not count.
//
// Reads do no more than note when they begin to wait, by the server's clock. A
// timer looks at that a few times while the limit passes; it is set when
// something is waited for at all.
type stall struct {
	limit time.Duration // 0: nothing is watched
	timer *time.Timer   // reused; nil until it is needed
	check func()        // what it calls

	since atomic.Int64 // when the read that waits began to; 0: none waits
	found atomic.Bool  // it has waited too long
	over  bool         // nothing is watched any more; guarded by the exchange's timing
}

// watch says that a read of the response's body begins to wait.
func (x *exchange) watch() {
	s := &x.stall
	if s.limit == 0 {
		if s.limit = x.back.options.Upstream.IdleTimeout(); s.limit == 0 {
			return
		}
		x.server.clock.keep(s.limit)
		if s.timer == nil {
			s.timer = time.AfterFunc(s.limit, s.check)
		} else {
			s.timer.Reset(s.limit)
		}
	}
	s.since.Store(x.server.clock.now.Load())
}

// unwatch says that it waits no more.
func (x *exchange) unwatch() { x.stall.since.Store(0) }

// endWatch says that no other read follows.
func (x *exchange) endWatch() {
	s := &x.stall
	if s.limit == 0 {
		return
	}
	x.timing.Lock()
	defer x.timing.Unlock()
	s.over = true
	if !s.timer.Stop() {
		x.loose = true // it may be about to run
	}
}

// stalled is called by the timer.
func (x *exchange) stalled() {
	defer x.guard()
	x.timing.Lock()
	defer x.timing.Unlock()
	s := &x.stall
	if s.over {
		return
	}
	since, waited := s.since.Load(), time.Duration(0)
	if since != 0 {
		waited = time.Duration(x.server.clock.now.Load() - since)
	}
	if waited < s.limit {
		// A read that begins to wait at once is looked at soon after its time.
		s.timer.Reset(max(min(s.limit/32, time.Second), s.limit-waited-s.limit/32, time.Millisecond))
		return
	}
	s.found.Store(true)
	x.fail(errStalled)
}
