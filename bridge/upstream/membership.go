package upstream

import (
	"slices"
	"sync"
	"time"
)

// listedTime is how long the status still lists an endpoint that left and has no
// connections, so that its last counts are not lost. At most maxGone such endpoints are
// kept.
const (
	listedTime = 15 * time.Second
	maxGone    = 512
)

// A membership tracks the present and former endpoints of an Upstream. The
// group itself can be read without its lock.
type membership struct {
	mu      sync.Mutex
	started bool // endpoints that join start their background work
	retired bool // endpoints that join do no background work
	gone    []*Endpoint
	left    []func(*Endpoint)

	inherited map[address]EndpointState // the states of another process, during Adopt
}

// replace replaces the group's endpoints, and returns those that left. Only one
// goroutine at a time may call it.
func (u *Upstream) replace(endpoints []*Endpoint) (left []*Endpoint) {
	m := &u.members
	m.mu.Lock()
	before := u.group.Load().endpoints
	for _, e := range endpoints {
		if slices.Contains(before, e) {
			continue
		}
		m.adoptState(e)
		if m.started && !m.retired {
			e.start()
		}
	}
	u.group.Store(newGroup(u.options.Policy, endpoints))
	now := time.Now()
	for _, e := range endpoints {
		if len(before) > 0 && !slices.Contains(before, e) {
			e.cameUp(now) // others already take traffic
		}
	}
	for _, e := range before {
		if slices.Contains(endpoints, e) {
			continue
		}
		e.gone.Store(now.UnixNano())
		e.end()
		left = append(left, e)
	}
	u.changed()
	m.gone = append(m.gone, left...)
	m.forget(now)
	notify := slices.Clone(m.left)
	m.mu.Unlock()
	for _, e := range left {
		for _, left := range notify {
			left(e)
		}
	}
	return left
}

// forget drops former endpoints that no longer need to be listed. m.mu is
// held.
func (m *membership) forget(now time.Time) {
	idle := 0
	for i := len(m.gone) - 1; i >= 0; i-- { // the list is in order of leaving
		e := m.gone[i]
		if e.counts.open.Load() > 0 {
			continue
		}
		if idle++; idle > maxGone || now.Sub(time.Unix(0, e.gone.Load())) >= listedTime {
			m.gone = slices.Delete(m.gone, i, i+1)
		}
	}
}

// all returns the present endpoints, and the former ones that the status still
// lists.
func (u *Upstream) all() (present, gone []*Endpoint) {
	m := &u.members
	m.mu.Lock()
	defer m.mu.Unlock()
	m.forget(time.Now())
	return u.Endpoints(), slices.Clone(m.gone)
}

// NotifyLeft makes the upstream call left for each endpoint that leaves;
// Endpoint.Left is then true. DNS lookups wait until it returns.
func (u *Upstream) NotifyLeft(left func(*Endpoint)) {
	u.members.mu.Lock()
	defer u.members.mu.Unlock()
	u.members.left = append(u.members.left, left)
}
