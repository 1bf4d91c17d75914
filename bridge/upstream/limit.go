package upstream

import (
	"errors"
	"sync/atomic"
	"time"
)

// Limits bound the load of an Upstream. Requests are HTTP requests, or
// connections of TCP listeners. 0 means no limit.
//
// A request counts while it has an endpoint, from Turn.Next to Turn.End. A
// connection of traffic, or a warm one, counts from the dial until it is
// closed. Health checks do not count: an endpoint at its limit is still
// checked.
type Limits struct {
	Requests, RequestsPerEndpoint       int
	Connections, ConnectionsPerEndpoint int

	Pending        int           // Turns that may wait for room
	PendingTimeout time.Duration // total waiting time of one Turn; 0: 5s
}

// A quota counts against one limit.
type quota struct {
	n    atomic.Int64
	most int64 // 0: no limit
}

// acquire counts one more, or returns false if the limit is reached.
func (q *quota) acquire() bool {
	if q.most == 0 {
		q.n.Add(1)
		return true
	}
	// Adding first and subtracting on overflow would make a concurrent acquire
	// find the quota full although there is room.
	for {
		n := q.n.Load()
		if n >= q.most {
			return false
		}
		if q.n.CompareAndSwap(n, n+1) {
			return true
		}
	}
}

func (q *quota) release() { q.n.Add(-1) }

// hasRoom reports whether the count, reduced by minus, is below the limit.
func (q *quota) hasRoom(minus int64) bool { return q.most == 0 || q.n.Load()-minus < q.most }

// connections counts the connections of one Upstream or Endpoint.
type connections struct {
	quota
	idle    atomic.Int64 // unused connections, closed when another connection needs room
	claimed atomic.Int64 // claims of Turns that have an endpoint but no connection yet
}

// room reports whether one more connection may be in use.
func (c *connections) room() bool { return c.hasRoom(c.idle.Load() - c.claimed.Load()) }

// ErrFull reports that a new connection would exceed a limit, or that all
// allowed connections are in use. Nothing was dialed.
var ErrFull = errors.New("no further connection may be opened")

// LimitsConnections reports whether connections are counted at all, so that
// calls of NoteIdle and NoteShared are needed.
func (u *Upstream) LimitsConnections() bool { return u.connections.most+u.perEndpoint > 0 }

// canUse reports whether t can use e: e takes traffic, t has not tried it, and
// there is room.
func (t *Turn) canUse(e *Endpoint) bool {
	return e.takesTraffic() && !t.hasTried(e) && e.inProgress.hasRoom(0) && t.canConnect(e)
}

// canConnect reports whether t can get a connection to e, new or existing.
func (t *Turn) canConnect(e *Endpoint) bool {
	if !e.upstream.LimitsConnections() {
		return true
	}
	return !t.exclusive && e.shared.Load() > 0 || e.connections.room() && e.upstream.connections.room()
}

// claim counts t as needing a connection to its endpoint, so that no other Turn
// expects the same connection. acquireConnection enforces the limit.
func (t *Turn) claim() {
	if u := t.upstream; u.LimitsConnections() {
		t.claimsConnection = true
		t.at.connections.claimed.Add(1)
		u.connections.claimed.Add(1)
	}
}

// unclaim undoes claim.
func (t *Turn) unclaim() {
	if t.claimsConnection {
		t.claimsConnection = false
		t.at.connections.claimed.Add(-1)
		t.upstream.connections.claimed.Add(-1)
	}
}

// A capacity tracks an endpoint's limits.
type capacity struct {
	upstream    *Upstream
	inProgress  quota        // requests in progress
	connections connections  // counted only with a limit
	shared      atomic.Int64 // connections with room for further requests; see NoteShared
}

// acquireConnection counts a connection that is about to be dialed, or returns
// ErrFull.
func (c *capacity) acquireConnection() error {
	u := c.upstream
	if !u.LimitsConnections() {
		return nil
	}
	if !c.connections.acquire() {
		return ErrFull
	}
	all := u.connections.acquire()
	if !all {
		c.connections.release()
	}
	u.changed()
	if !all {
		return ErrFull
	}
	return nil
}

// releaseConnection undoes acquireConnection.
func (c *capacity) releaseConnection() {
	u := c.upstream
	if !u.LimitsConnections() {
		return
	}
	c.connections.release()
	u.connections.release()
	u.changed()
}

// NoteIdle changes the number of the endpoint's connections that are open but
// not in use. The owner of such connections must close them on request: see
// SetEvictIdle.
func (c *capacity) NoteIdle(more int) {
	u := c.upstream
	if more == 0 || !u.LimitsConnections() {
		return
	}
	c.connections.idle.Add(int64(more))
	u.connections.idle.Add(int64(more))
	u.changed()
}

// NoteShared changes the number of the endpoint's connections, including those
// being made, that accept further requests. It is also called with 0 when such
// a connection has received a request.
func (c *capacity) NoteShared(more int) {
	if !c.upstream.LimitsConnections() {
		return
	}
	c.shared.Add(int64(more))
	c.upstream.changed()
}

// SetEvictIdle sets the function that MakeRoom calls when a connection is
// needed and the limit is reached. It closes an idle connection to the given
// endpoint, or to any endpoint for nil, except those that belong to spare, and
// reports whether it closed one. A caller of NoteIdle sets it before u takes
// traffic.
func (u *Upstream) SetEvictIdle(f func(e *Endpoint, spare any) bool) { u.evictIdle = f }

// MakeRoom closes an idle connection after a dial to e failed with ErrFull, and
// reports whether it closed one. Connections that belong to spare stay open;
// nil spares none.
func (e *Endpoint) MakeRoom(spare any) bool {
	u, at := e.upstream, e
	if e.connections.hasRoom(0) {
		at = nil // the upstream's limit is reached, not the endpoint's
	}
	if u.evictIdle != nil && u.evictIdle(at, spare) {
		return true
	}
	if at != nil {
		return e.warm.drop()
	}
	for _, e := range u.Endpoints() {
		if e.warm.drop() {
			return true
		}
	}
	return false
}
