package upstream

import (
	"sync"
	"sync/atomic"
	"time"
)

// An EventKind is the kind of change of an endpoint.
type EventKind int

const (
	HealthChanged    EventKind = iota
	Failed                     // an attempt to connect, or a new connection
	EndpointsChanged           // DNS has other endpoints; fields about one endpoint are then zero
	Ejected                    // outlier detection ejected the endpoint
	Returned                   // the ejection is over
	Unverified                 // endpoints of open connections no longer verify; not about one endpoint
)

// An Event is a notification to an Upstream's observer. Failures of an endpoint
// for the same reason are combined into at most one Event in 10s. A flapping
// endpoint causes a few Events within 10s, and then one when the 10s are over
// and the endpoint is used.
type Event struct {
	Upstream, Endpoint string
	Kind               EventKind

	Health  Health   // the current health
	Failure *Failure // the cause of the Event; nil when the endpoint came up. Must not be modified.
	Count   uint64   // Failed: failures for this reason since the last Event about it; Unverified: connections
	Message string   // EndpointsChanged: the added and removed endpoints; bounded
}

func (u *Upstream) notify(event Event) {
	if u.options.Observer != nil {
		event.Upstream = u.Name()
		u.options.Observer(event)
	}
}

// maxChanges is the number of health changes reported within reportEvery.
const (
	maxChanges  = 6
	reportEvery = 10 * time.Second
)

// health is an endpoint's health, and the health last reported to the
// observer.
type health struct {
	now      atomic.Int32
	reported atomic.Int32 // written under mu

	mu      sync.Mutex // held while the observer runs, so that it receives changes in order
	since   time.Time  // start of the span in which changes are counted
	changes int
}

// set makes h the health, and calls notify if the change must be reported.
func (s *health) set(h Health, notify func()) {
	s.now.Store(int32(h))
	if Health(s.reported.Load()) == h {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if Health(s.reported.Load()) == h || !s.mayReport(time.Now()) {
		return
	}
	s.reported.Store(int32(h))
	notify()
}

// mayReport counts a change, and reports whether it is within the limit. s.mu is
// held.
func (s *health) mayReport(now time.Time) bool {
	if now.Sub(s.since) >= reportEvery {
		s.since, s.changes = now, 0
	}
	s.changes++
	return s.changes <= maxChanges
}

func (s *health) load() Health { return Health(s.now.Load()) }
