package upstream

import (
	"sync"
	"sync/atomic"
	"time"
)

// An EventKind says what happened to an endpoint.
type EventKind int

const (
	HealthChanged    EventKind = iota
	Failed                     // an attempt to connect, or a connection just made
	EndpointsChanged           // DNS has others; what is about one endpoint is then zero
	Ejected                    // it is left alone for a while
	Returned                   // that is over
)

// An Event is what an Upstream tells its observer. Failures of an endpoint for
// the same reason are told at most once in 10s, together; an endpoint whose
// health flaps is told of a few times in that span, and then again as soon as
// it has passed and the endpoint is used.
type Event struct {
	Upstream, Endpoint string
	Kind               EventKind

	Health  Health   // the endpoint's now
	Failure *Failure // what failed, or made the endpoint go down, or why it was ejected or returned; nil when it came up. Not to be modified.
	Count   uint64   // Failed: how often for this reason since that was last told
	Message string   // EndpointsChanged: which came and which left; bounded
}

func (u *Upstream) tell(event Event) {
	if u.options.Observer != nil {
		event.Upstream = u.Name()
		u.options.Observer(event)
	}
}

// maxChanges is how many changes of health are told within tellEvery.
const (
	maxChanges = 6
	tellEvery  = 10 * time.Second
)

// health is an endpoint's, with what was told of it.
type health struct {
	now  atomic.Int32
	told atomic.Int32 // written under mu

	mu      sync.Mutex // held while the observer is told, so that it hears changes in their order
	since   time.Time  // begin of the span that changes are counted in
	changes int
}

// set makes h the health, and calls tell if that is a change to be told.
func (s *health) set(h Health, tell func()) {
	s.now.Store(int32(h))
	if Health(s.told.Load()) == h {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if Health(s.told.Load()) == h || !s.mayTell(time.Now()) {
		return
	}
	s.told.Store(int32(h))
	tell()
}

// mayTell takes one of the changes that may be told. s.mu is held.
func (s *health) mayTell(now time.Time) bool {
	if now.Sub(s.since) >= tellEvery {
		s.since, s.changes = now, 0
	}
	s.changes++
	return s.changes <= maxChanges
}

func (s *health) load() Health { return Health(s.now.Load()) }
