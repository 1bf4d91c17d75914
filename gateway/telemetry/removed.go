package telemetry

import (
	"sync"

	"github.com/drawbridge-gateway/drawbridge/gateway/listeners"
	"github.com/drawbridge-gateway/drawbridge/gateway/snapshot"
)

// removals holds upstreams and listeners that have left the live state, or are about to,
// until their last counts are published.
type removals struct {
	wake chan struct{} // receives a value when an object has left the live state

	mu        sync.Mutex
	upstreams []snapshot.Upstream
	listeners []*listeners.Running
}

// Replacing records that next is about to replace prev. The caller calls done
// afterward. Neither function blocks.
func (p *Publisher) Replacing(prev, next *snapshot.Snapshot) (done func()) {
	p.removed.add(prev.Replaced(next), nil)
	return p.removed.wakeRun
}

// Removing records that a listener without connections is about to leave its Set.
// The caller calls done afterward. Neither function blocks.
func (p *Publisher) Removing(l *listeners.Running) (done func()) {
	p.removed.add(nil, []*listeners.Running{l})
	return p.removed.wakeRun
}

func (r *removals) add(upstreams []snapshot.Upstream, gone []*listeners.Running) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.upstreams, r.listeners = append(r.upstreams, upstreams...), append(r.listeners, gone...)
}

// wakeRun wakes Run if Run has counts to publish.
func (r *removals) wakeRun() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.upstreams)+len(r.listeners) == 0 {
		return
	}
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

func (r *removals) take() ([]snapshot.Upstream, []*listeners.Running) {
	r.mu.Lock()
	defer r.mu.Unlock()
	upstreams, gone := r.upstreams, r.listeners
	r.upstreams, r.listeners = nil, nil
	return upstreams, gone
}

// publishLast publishes the last counts of everything that has left, and forgets it. An
// upstream that is still live in snap, or a listener still in its Set, waits for a later
// call. The caller holds p.mu.
func (p *Publisher) publishLast(snap *snapshot.Snapshot) {
	upstreams, gone := p.removed.take()
	if len(upstreams)+len(gone) == 0 {
		return
	}
	p.removing = true
	for _, u := range upstreams {
		switch now, exists := snap.Upstream(u.Name); {
		case exists && now.Live == u.Live:
			p.removed.add([]snapshot.Upstream{u}, nil)
		case exists && now.Latencies == u.Latencies:
			p.publishCounts(u) // another upstream of the same name publishes the latencies
		default:
			p.publishUpstream(u)
		}
	}
	served := map[*listeners.Running]bool{}
	if len(gone) > 0 {
		p.o.Listeners.Each(func(l *listeners.Running) { served[l] = true })
	}
	for _, l := range gone {
		if served[l] {
			p.removed.add(nil, []*listeners.Running{l})
		} else {
			p.publishListener(l)
		}
	}
	for _, of := range p.removedRecords {
		delete(p.records, of)
	}
	p.removing, p.removedRecords = false, nil
}
