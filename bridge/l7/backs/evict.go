package backs

import (
	"cmp"

	"github.com/drawbridge-gateway/drawbridge/bridge/upstream"
)

// An upstream that limits its connections must know which open connections could be
// used, or closed to make room. For other upstreams the code in this file does
// nothing.

// reportIdleLocked reports the number of idle connections, if it has changed. p.mu is held.
func (p *pool) reportIdleLocked() {
	if more := len(p.idle) - p.reported; more != 0 {
		p.reported = len(p.idle)
		p.endpoint.NoteIdle(more)
	}
}

// reportSharedLocked reports the number of HTTP/2 connections, open or being
// dialed, that accept another request. p.mu is held.
func (p *pool) reportSharedLocked() {
	if !p.back.options.Upstream.LimitsConnections() {
		return
	}
	s, n := &p.sharedConns, 0
	for _, c := range s.conns {
		if c.http.Room() > 0 {
			n++
		}
	}
	for _, d := range s.dials {
		if d.waiters < p.roomLocked() {
			n++
		}
	}
	more := n - s.reported
	s.reported = n
	p.endpoint.NoteShared(more)
}

// evictIdle closes an idle connection to an endpoint (nil: to any endpoint) to
// make room for another, but never one of the pool spare. It reports whether it
// closed one.
func (b *Pools) evictIdle(e *upstream.Endpoint, spare any) bool {
	return b.endpoints.evictIdle(e, spare) || b.hosts.evictIdle(e, spare)
}

func (p *endpointPools) evictIdle(e *upstream.Endpoint, spare any) bool {
	all := p.pools.Load()
	if all == nil {
		return false
	}
	for at, of := range *all {
		if (e == nil || e == at) && of != spare && of.evictIdle() {
			return true
		}
	}
	return false
}

// evictIdle closes the least recently used idle connection.
func (h *hostPools) evictIdle(e *upstream.Endpoint, spare any) bool {
	h.mu.Lock()
	var all []*pool
	for at := h.recent.Back(); at != nil; at = at.Prev() {
		if p := at.Value.(*pool); (e == nil || e == p.endpoint) && p != spare {
			all = append(all, p)
		}
	}
	h.mu.Unlock()
	for _, p := range all {
		if p.evictIdle() {
			return true
		}
	}
	return false
}

// evictIdle closes the least recently used connection. It also closes an HTTP/2
// connection without requests, but does not report that because it takes a moment.
func (p *pool) evictIdle() bool {
	p.mu.Lock()
	var unused *conn2
	for _, c := range p.sharedConns.conns {
		if c.http.Streams() == 0 {
			unused = cmp.Or(unused, c)
		}
	}
	if len(p.idle) == 0 {
		p.mu.Unlock()
		if unused != nil {
			unused.retire()
		}
		return false
	}
	c := p.idle[0]
	p.idle[0] = nil
	p.idle = p.idle[1:]
	c.idle = false
	p.reportIdleLocked()
	p.mu.Unlock()
	c.close()
	p.dropIfEmpty()
	return true
}
