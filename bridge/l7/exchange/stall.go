package exchange

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/drawbridge-gateway/drawbridge/certs"
)

// errStalled ends a response because the upstream sent nothing for longer than its
// idle timeout.
var errStalled = &certs.VerifyError{Reason: certs.ReasonResponseTimeout, Detail: "the rest of the response did not arrive in time"}

// A stall watches the reads of a response's body, if the upstream has an idle
// timeout. Time during which the client does not read does not count.
//
// Each read records the time at which it begins to wait, by the listener's clock. A
// timer, set by the first read that waits, checks that time a few times within the limit.
type stall struct {
	x     *Exchange
	check func()        // the method value expired
	limit time.Duration // 0: reads are not watched

	since atomic.Int64 // when the current read began to wait; 0: no read waits
	found atomic.Bool  // a read waited too long

	mu      sync.Mutex  // held by the timer
	timer   *time.Timer // reused; nil until it is needed
	ended   bool        // reads are not watched any more
	pending bool        // the timer may still run
}

func (s *stall) init(x *Exchange) { s.x, s.check = x, s.expired }

func (s *stall) reset() {
	s.limit, s.ended = 0, false
	s.since.Store(0)
	s.found.Store(false)
}

// watch records that a read of the response's body begins to wait.
func (s *stall) watch() {
	if s.limit == 0 {
		s.start()
	}
	s.since.Store(s.x.shared.Clock.Now())
}

// start sets the timer, if the upstream has an idle timeout.
func (s *stall) start() {
	if s.limit = s.x.try.upstream.Upstream().IdleTimeout(); s.limit == 0 {
		return
	}
	s.x.shared.Clock.KeepWithin(s.limit)
	if s.timer == nil {
		s.timer = time.AfterFunc(s.limit, s.check)
	} else {
		s.timer.Reset(s.limit)
	}
}

// unwatch records that the read has returned.
func (s *stall) unwatch() { s.since.Store(0) }

// waits reports whether a read waits.
func (s *stall) waits() bool { return s.since.Load() != 0 }

// end records that no other read follows.
func (s *stall) end() {
	if s.limit == 0 {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ended = true
	if !s.timer.Stop() {
		s.pending = true // expired may be about to run
	}
}

// expired is called by the timer.
func (s *stall) expired() {
	defer s.x.guard()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended {
		return
	}
	since, waited := s.since.Load(), time.Duration(0)
	if since != 0 {
		waited = time.Duration(s.x.shared.Clock.Now() - since)
	}
	if waited < s.limit {
		// A read that begins to wait now is checked soon after its limit.
		s.timer.Reset(max(min(s.limit/32, time.Second), s.limit-waited-s.limit/32, time.Millisecond))
		return
	}
	s.found.Store(true)
	s.x.cancel.fail(errStalled)
}
