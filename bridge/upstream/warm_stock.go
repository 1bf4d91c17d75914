package upstream

import (
	"net"
	"slices"
	"sync/atomic"
	"time"
)

const (
	// freshFor is how long a connection counts as young and is checked every
	// lookFresh: a server that rejects the gateway's certificate does so at once.
	// Older connections are checked every lookOld.
	freshFor  = 5 * time.Second
	lookFresh = time.Second
	lookOld   = 5 * time.Second
)

// A warmConn is one connection of a warmPool. The pool's lock guards it.
type warmConn struct {
	net.Conn
	made, end time.Time // when it was opened, and when it becomes too old to be handed out
	drained   bool      // the connection must not be handed out
}

// A warmStock holds the connections of a warmPool and their counters. The
// pool's lock guards everything except the counters.
type warmStock struct {
	maxAge time.Duration

	ready    []*warmConn // oldest first
	reported int         // how many of them were reported to idle
	trial    *warmConn   // opened while the endpoint is down, to test whether it accepts the gateway
	looked   time.Time   // when the connections were last checked

	used, missed, expired, closed atomic.Uint64
}

// report passes idle the change since its last call. Idle may be nil.
func (s *warmStock) report(idle func(int)) {
	if more := len(s.ready) - s.reported; more != 0 && idle != nil {
		s.reported = len(s.ready)
		idle(more)
	}
}

// count returns the number of connections.
func (s *warmStock) count() int {
	if s.trial != nil {
		return len(s.ready) + 1
	}
	return len(s.ready)
}

// oldest removes the oldest connection that is not too old, or returns nil.
func (s *warmStock) oldest(now time.Time) *warmConn {
	for i, c := range s.ready {
		if now.Before(c.end) {
			s.ready = slices.Delete(s.ready, i, i+1)
			return c
		}
	}
	return nil
}

// remove removes c and reports whether it was present.
func (s *warmStock) remove(c *warmConn) bool {
	if s.trial == c {
		s.trial = nil
		return true
	}
	i := slices.Index(s.ready, c)
	if i >= 0 {
		s.ready = slices.Delete(s.ready, i, i+1)
	}
	return i >= 0
}

// empty removes all connections.
func (s *warmStock) empty() []*warmConn {
	all := s.ready
	if s.trial != nil {
		all = append(all, s.trial)
	}
	s.ready, s.trial = nil, nil
	return all
}

// sweep removes the connections that are too old, and all that are ready if the
// endpoint is down. It returns them, and when to call it again.
func (s *warmStock) sweep(now time.Time, down bool) (gone []*warmConn, next time.Duration) {
	if s.trial != nil && !down {
		s.ready, s.trial = append(s.ready, s.trial), nil
	}
	s.ready = slices.DeleteFunc(s.ready, func(c *warmConn) bool {
		old := !now.Before(c.end)
		if old && !down {
			s.expired.Add(1)
		}
		if old || down {
			gone = append(gone, c)
		}
		return old || down
	})
	next = nothingToDo
	for _, c := range s.ready {
		next = min(next, c.end.Sub(now))
	}
	if s.count() > 0 {
		next = min(next, s.lookAt().Sub(now))
	}
	return gone, next
}

// lookAt returns when to check the connections next.
func (s *warmStock) lookAt() time.Time {
	young := s.trial != nil
	if n := len(s.ready); n > 0 {
		young = young || s.looked.Sub(s.ready[n-1].made) < freshFor
	}
	if young {
		return s.looked.Add(lookFresh)
	}
	return s.looked.Add(lookOld)
}
