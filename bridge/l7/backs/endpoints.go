package backs

import (
	"maps"
	"sync"
	"sync/atomic"

	"github.com/drawbridge-gateway/drawbridge/bridge/upstream"
)

// endpointPools are the pools of an upstream, one for each endpoint. The first
// request to an endpoint creates its pool. Endpoints rarely change, and every
// request looks up a pool, so the map is read without a lock and copied on write.
type endpointPools struct {
	back  *Pools
	pools atomic.Pointer[map[*upstream.Endpoint]*pool]

	mu      sync.Mutex // held by the goroutine that changes the pools
	retired bool
}

// pool returns the pool of an endpoint.
func (p *endpointPools) pool(e *upstream.Endpoint) *pool {
	if all := p.pools.Load(); all != nil {
		if of := (*all)[e]; of != nil {
			return of
		}
	}
	return p.add(e)
}

func (p *endpointPools) add(e *upstream.Endpoint) *pool {
	p.mu.Lock()
	defer p.mu.Unlock()
	all := p.copyLocked()
	if of := all[e]; of != nil {
		return of
	}
	of, left := p.back.newPool(hostPool{endpoint: e}), e.Left()
	of.retired = p.retired || left
	if left {
		// A request that chose the endpoint before the endpoint left is served, and
		// its connection is closed afterward. Left is true before leave is called,
		// so no connection is kept.
		return of
	}
	all[e] = of
	p.pools.Store(&all)
	return of
}

// copyLocked returns a copy of the pools. p.mu is held.
func (p *endpointPools) copyLocked() map[*upstream.Endpoint]*pool {
	if all := p.pools.Load(); all != nil {
		return maps.Clone(*all)
	}
	return make(map[*upstream.Endpoint]*pool)
}

// leave ends the pool of an endpoint that has left the upstream: idle connections
// are closed at once, and the others when their requests have ended.
func (p *endpointPools) leave(e *upstream.Endpoint) {
	p.mu.Lock()
	all := p.copyLocked()
	of := all[e]
	delete(all, e)
	p.pools.Store(&all)
	p.mu.Unlock()
	if of != nil {
		of.retire()
	}
}

// retire ends all pools, and those created later.
func (p *endpointPools) retire() {
	p.mu.Lock()
	p.retired = true
	all := p.copyLocked()
	p.mu.Unlock()
	for _, of := range all {
		of.retire()
	}
}

// kept returns how many pools there are for an endpoint.
func (p *endpointPools) kept(e *upstream.Endpoint) int {
	if all := p.pools.Load(); all != nil && (*all)[e] != nil {
		return 1
	}
	return 0
}
