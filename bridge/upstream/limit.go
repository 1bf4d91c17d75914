package upstream

import (
	"errors"
	"sync/atomic"
	"time"
)

// Limits bound what an Upstream is sent. Requests are HTTP requests, or
// connections of TCP listeners. 0 is no limit.
//
// Requests are those that have an endpoint, from Turn.Next to Turn.End.
// Connections are those of traffic and those kept warm; they count from when
// they begin to be made until they are closed. Health checks are none: an
// endpoint that has all it may have is asked all the same.
type Limits struct {
	Requests, RequestsPerEndpoint       int
	Connections, ConnectionsPerEndpoint int

	Pending        int           // most that wait until a limit allows them
	PendingTimeout time.Duration // how long one may wait in all; 0: 5s
}

// A quota counts what a limit bounds.
type quota struct {
	n    atomic.Int64
	most int64 // 0: no limit
}

// take counts one more, or returns false: there are as many as there may be.
func (q *quota) take() bool {
	if q.most == 0 {
		q.n.Add(1)
		return true
	}
	// Adding first and taking back what was too much would have another, who
	// could go, find it full.
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

func (q *quota) give() { q.n.Add(-1) }

// fewer reports whether less than the limit are left when some are not counted.
func (q *quota) fewer(but int64) bool { return q.most == 0 || q.n.Load()-but < q.most }

// Connections of one Upstream, or Endpoint.
type connections struct {
	quota
	idle    atomic.Int64 // of them: they carry nothing, and are used or closed when one is needed
	claimed atomic.Int64 // by Turns that were sent to an endpoint and have none yet
}

// room reports whether one more may be in use.
func (c *connections) room() bool { return c.fewer(c.idle.Load() - c.claimed.Load()) }

// ErrFull reports that no connection can be opened without passing a limit, or
// that all that may be open are in use. Nothing was tried.
var ErrFull = errors.New("no further connection may be opened")

// LimitsConnections reports whether connections are counted at all, so that it
// matters what NoteIdle and NoteShared are told.
func (u *Upstream) LimitsConnections() bool { return u.connections.most+u.perEndpoint > 0 }

// may reports whether t may go to e: it takes traffic, t has not been there, and
// there is room.
func (t *Turn) may(e *Endpoint) bool {
	return e.takes() && !t.was(e) && e.underWay.fewer(0) && t.connects(e)
}

// connects reports whether t finds a connection to e, or may make one.
func (t *Turn) connects(e *Endpoint) bool {
	if !e.upstream.LimitsConnections() {
		return true
	}
	return !t.exclusive && e.shared.Load() > 0 || e.connections.room() && e.upstream.connections.room()
}

// claim counts t among those that will need a connection to its endpoint, so that
// others are not sent there for the same one. That they are no more than may be is
// for takePlace to see to.
func (t *Turn) claim() {
	if u := t.upstream; u.LimitsConnections() {
		t.claims = true
		t.at.connections.claimed.Add(1)
		u.connections.claimed.Add(1)
	}
}

// unclaim takes that back.
func (t *Turn) unclaim() {
	if t.claims {
		t.claims = false
		t.at.connections.claimed.Add(-1)
		t.upstream.connections.claimed.Add(-1)
	}
}

// A capacity is what an endpoint's limits leave room for.
type capacity struct {
	upstream    *Upstream
	underWay    quota        // requests
	connections connections  // counted only if a limit asks for it
	shared      atomic.Int64 // connections that take further requests; see NoteShared
}

// takePlace counts a connection that is about to be made, or returns ErrFull.
func (c *capacity) takePlace() error {
	u := c.upstream
	if !u.LimitsConnections() {
		return nil
	}
	if !c.connections.take() {
		return ErrFull
	}
	all := u.connections.take()
	if !all {
		c.connections.give()
	}
	u.changed()
	if !all {
		return ErrFull
	}
	return nil
}

// givePlace takes back what takePlace counted.
func (c *capacity) givePlace() {
	u := c.upstream
	if !u.LimitsConnections() {
		return
	}
	c.connections.give()
	u.connections.give()
	u.changed()
}

// NoteIdle says that so many more (fewer, if it is negative) of the endpoint's
// connections are open but not in use. Whoever keeps such must close them when
// told to: see SetEvictIdle.
func (c *capacity) NoteIdle(more int) {
	u := c.upstream
	if more == 0 || !u.LimitsConnections() {
		return
	}
	c.connections.idle.Add(int64(more))
	u.connections.idle.Add(int64(more))
	u.changed()
}

// NoteShared says that so many more (fewer) of the endpoint's connections, those
// being made included, take further requests beside those that they have. It is
// also called when no more or fewer do, but a request has been given to one.
func (c *capacity) NoteShared(more int) {
	if !c.upstream.LimitsConnections() {
		return
	}
	c.shared.Add(int64(more))
	c.upstream.changed()
}

// SetEvictIdle sets the function that MakeRoom calls when a connection is needed and
// no more may be open. It closes an idle connection to the endpoint given, or to any
// endpoint for nil, but none that belongs to spare, and reports whether it closed
// one. Whoever calls NoteIdle sets it before u takes traffic.
func (u *Upstream) SetEvictIdle(f func(e *Endpoint, spare any) bool) { u.evictIdle = f }

// MakeRoom closes an idle connection for one to the endpoint that failed with
// ErrFull, and reports whether there was one. Spare is whose connections are of
// no less use; nil: nobody's.
func (e *Endpoint) MakeRoom(spare any) bool {
	u, at := e.upstream, e
	if e.connections.fewer(0) {
		at = nil // there are too many, but not of the endpoint's
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
