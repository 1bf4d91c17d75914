package upstream

import (
	"net"
	"slices"
	"sync/atomic"
	"time"
)

const (
	// freshFor is how long a connection is young, and looked at every
	// lookFresh: a server that refuses our certificate says so at once. Later it
	// is every lookOld.
	freshFor  = 5 * time.Second
	lookFresh = time.Second
	lookOld   = 5 * time.Second
)

// A warmConn is one connection of a warmPool. The pool's lock guards it.
type warmConn struct {
	net.Conn
	made, end time.Time // it is not given out after end
	drained   bool      // it is not to be given out at all
}

// A warmStock is the connections that a warmPool has, and what became of them. The
// pool's lock guards it, but for the counters.
type warmStock struct {
	maxAge time.Duration

	ready    []*warmConn // the oldest first
	reported int         // how many of them report has told of
	trial    *warmConn   // made while the endpoint is down: does it accept us?
	looked   time.Time   // when the connections were last looked at

	used, missed, expired, closed atomic.Uint64
}

// report tells idle how many more are ready than it was last told. Nil is not told.
func (s *warmStock) report(idle func(int)) {
	if more := len(s.ready) - s.reported; more != 0 && idle != nil {
		s.reported = len(s.ready)
		idle(more)
	}
}

// count returns how many connections there are.
func (s *warmStock) count() int {
	if s.trial != nil {
		return len(s.ready) + 1
	}
	return len(s.ready)
}

// oldest removes the oldest connection that is not too old; nil if there is none.
func (s *warmStock) oldest(now time.Time) *warmConn {
	for i, c := range s.ready {
		if now.Before(c.end) {
			s.ready = slices.Delete(s.ready, i, i+1)
			return c
		}
	}
	return nil
}

// remove removes c and reports whether it was there.
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

// sweep removes the connections that are too old, and all that are ready to an
// endpoint that is down. It returns them, and after what time there is more to do.
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

// lookAt returns when the connections are to be looked at next.
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
