package backs

import (
	"container/list"
	"sync"

	"github.com/drawbridge-gateway/drawbridge/bridge/upstream"
)

// maxHostPools bounds how many pools Pools keep if their upstream takes the server
// name from the request, or if clients are announced to it: any client can request
// any host, and connect many times. If only logins have their own pools,
// maxPrivatePools is the bound, because such pools end with their clients'
// connections.
const (
	maxHostPools    = 512
	maxPrivatePools = 1 << 16
)

// hostPools are the pools of an upstream for each endpoint, host and client. The least
// recently used pools are evicted when there are too many.
type hostPools struct {
	back *Pools

	mu      sync.Mutex
	retired bool
	pools   map[hostPool]*list.Element // the elements of recent
	recent  *list.List                 // elements hold a *pool, the most recently used first
}

// A hostPool identifies the connections of a pool.
type hostPool struct {
	endpoint *upstream.Endpoint
	host     string  // the host they are dialed for; "" if all hosts share them
	client   *Client // the client that they are announced as, or belong to; nil if all clients share them

	// private is set for connections on which the client may log in: see
	// Need.Login.
	private bool
}

func newHostPools(b *Pools) *hostPools {
	return &hostPools{back: b, pools: make(map[hostPool]*list.Element), recent: list.New()}
}

// pool returns the pool for a key.
func (h *hostPools) pool(key hostPool) *pool {
	p, oldest := h.find(key)
	if oldest != nil {
		oldest.leaves()
	}
	return p
}

// find returns a pool, and the pool that was evicted for it, if any.
func (h *hostPools) find(key hostPool) (p, oldest *pool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if at := h.pools[key]; at != nil {
		h.recent.MoveToFront(at)
		return at.Value.(*pool), nil
	}
	p = h.back.newPool(key)
	if h.retired || key.endpoint.Left() || key.client != nil && !key.client.add(p) {
		p.retired = true
		return p, nil
	}
	h.pools[key] = h.recent.PushFront(p)
	most := maxHostPools
	if !h.back.perHost {
		most = maxPrivatePools
	}
	if h.recent.Len() > most {
		oldest = h.recent.Back().Value.(*pool)
		h.removeLocked(oldest)
	}
	return p, oldest
}

// drop removes p. Requests in progress on its connections continue.
func (h *hostPools) drop(p *pool) {
	h.mu.Lock()
	h.removeLocked(p)
	h.mu.Unlock()
	p.leaves()
}

// leaves ends a removed pool.
func (p *pool) leaves() {
	p.retire()
	if p.client != nil {
		p.client.remove(p)
	}
}

// removeLocked removes p if it is present. h.mu is held.
func (h *hostPools) removeLocked(p *pool) {
	if at := h.pools[p.hostPool]; at != nil && at.Value == p {
		delete(h.pools, p.hostPool)
		h.recent.Remove(at)
	}
}

// retire retires every pool, and those created later.
func (h *hostPools) retire() {
	h.mu.Lock()
	h.retired = true
	var all []*pool
	for at := h.recent.Front(); at != nil; at = at.Next() {
		all = append(all, at.Value.(*pool))
	}
	h.mu.Unlock()
	for _, p := range all {
		p.retire()
	}
}

// leave ends the pools of an endpoint that has left the upstream.
func (h *hostPools) leave(e *upstream.Endpoint) {
	h.mu.Lock()
	var all []*pool
	for key, at := range h.pools {
		if key.endpoint == e {
			p := at.Value.(*pool)
			all = append(all, p)
			h.removeLocked(p)
		}
	}
	h.mu.Unlock()
	for _, p := range all {
		p.leaves()
	}
}

// kept returns how many pools there are for an endpoint.
func (h *hostPools) kept(e *upstream.Endpoint) (n int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for key := range h.pools {
		if key.endpoint == e {
			n++
		}
	}
	return n
}
