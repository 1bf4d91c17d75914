package l7

import (
	"container/list"
	"sync"

	"github.com/drawbridge-gateway/drawbridge/bridge/upstream"
)

// maxHostPools bounds how many pools a Back keeps whose upstream takes the
// server name from the request: anybody can ask for any host.
const maxHostPools = 512

// hostPools are the pools of a Back for each endpoint and host. Those not used
// for longest go when there are too many.
type hostPools struct {
	back *Back

	mu      sync.Mutex
	retired bool
	pools   map[hostPool]*list.Element // of recent
	recent  *list.List                 // of *pool, the last used first
}

type hostPool struct {
	endpoint *upstream.Endpoint
	host     string
}

func newHostPools(b *Back) *hostPools {
	return &hostPools{back: b, pools: make(map[hostPool]*list.Element), recent: list.New()}
}

// pool returns the pool of an endpoint and a host.
func (h *hostPools) pool(e *upstream.Endpoint, host string) *pool {
	p, oldest := h.find(hostPool{e, host})
	if oldest != nil {
		oldest.retire()
	}
	return p
}

// find returns a pool, and the one that had to go for it, if one had to.
func (h *hostPools) find(key hostPool) (p, oldest *pool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if at := h.pools[key]; at != nil {
		h.recent.MoveToFront(at)
		return at.Value.(*pool), nil
	}
	p = h.back.newPool(key.endpoint, key.host)
	if h.retired {
		p.retired = true
		return p, nil
	}
	h.pools[key] = h.recent.PushFront(p)
	if h.recent.Len() > maxHostPools {
		oldest = h.recent.Back().Value.(*pool)
		h.removeLocked(oldest)
	}
	return p, oldest
}

// drop forgets p. Requests that it still carries are not disturbed.
func (h *hostPools) drop(p *pool) {
	h.mu.Lock()
	h.removeLocked(p)
	h.mu.Unlock()
	p.retire()
}

// removeLocked takes p out, if it is in. h.mu is held.
func (h *hostPools) removeLocked(p *pool) {
	key := hostPool{p.endpoint, p.host}
	if at := h.pools[key]; at != nil && at.Value == p {
		delete(h.pools, key)
		h.recent.Remove(at)
	}
}

// retire retires every pool, and those that are still asked for.
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
