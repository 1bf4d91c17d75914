package upstream

import (
	"slices"
	"sync"
	"time"
)

// lingers is for how long an endpoint that is gone, and has no connections, is
// still told of, so that what was counted last is not lost; no more than maxGone
// of them.
const (
	lingers = 15 * time.Second
	maxGone = 512
)

// A membership is who is and was in an Upstream's group. The group itself is read
// without it.
type membership struct {
	mu      sync.Mutex
	started bool // endpoints that join begin to work
	retired bool // and do not any more
	gone    []*Endpoint
	left    []func(*Endpoint)
}

// replace makes endpoints the group, and returns those of the one before that are
// not in it. It is called by one goroutine at a time.
func (u *Upstream) replace(endpoints []*Endpoint) (left []*Endpoint) {
	m := &u.members
	m.mu.Lock()
	before := u.group.Load().endpoints
	for _, e := range endpoints {
		if m.started && !m.retired && !slices.Contains(before, e) {
			e.start()
		}
	}
	u.group.Store(newGroup(u.options.Policy, endpoints))
	now := time.Now()
	for _, e := range endpoints {
		if len(before) > 0 && !slices.Contains(before, e) {
			e.cameUp(now) // beside those that have taken traffic
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
	told := slices.Clone(m.left)
	m.mu.Unlock()
	for _, e := range left {
		for _, tell := range told {
			tell(e)
		}
	}
	return left
}

// forget lets go of those that are gone and have nothing to tell any more. m.mu is
// held.
func (m *membership) forget(now time.Time) {
	idle := 0
	for i := len(m.gone) - 1; i >= 0; i-- { // who left last is the last
		e := m.gone[i]
		if e.counts.open.Load() > 0 {
			continue
		}
		if idle++; idle > maxGone || now.Sub(time.Unix(0, e.gone.Load())) >= lingers {
			m.gone = slices.Delete(m.gone, i, i+1)
		}
	}
}

// all returns the endpoints that there are, and after them those that are gone and
// have something to tell.
func (u *Upstream) all() (present, gone []*Endpoint) {
	m := &u.members
	m.mu.Lock()
	defer m.mu.Unlock()
	m.forget(time.Now())
	return u.Endpoints(), slices.Clone(m.gone)
}

// NotifyLeft has left called with each endpoint that leaves the upstream: from then
// on Endpoint.Left is true of it. Until it returns DNS is not asked again.
func (u *Upstream) NotifyLeft(left func(*Endpoint)) {
	u.members.mu.Lock()
	defer u.members.mu.Unlock()
	u.members.left = append(u.members.left, left)
}
