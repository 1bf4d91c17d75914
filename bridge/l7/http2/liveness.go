package http2

import (
	"encoding/binary"
	"time"
)

// suspectAfter is how long a request must have waited, with nothing read on its
// connection, for the connection to become suspect when the request is given up.
const suspectAfter = time.Second / 4

// A deliverer is a connection that knows how its peer takes what is written:
// progress is a number that changes when the peer has taken more, waiting how many
// bytes it has not taken yet.
type deliverer interface {
	Delivered() (progress uint64, waiting int)
}

// A liveness is what a connection knows about whether its peer is still there.
// Silence counts since the last read: what this side writes says nothing about the
// peer. It is guarded by the connection's mu.
type liveness struct {
	delivers deliverer // nil: the connection is none

	pinged  int64  // when the latest PING was sent; 0: never
	ping    token  // that PING
	number  uint64 // what it carries
	suspect bool   // see suspectLocked

	// What the peer has taken, as of the last look while something waited.
	progress uint64
	waiting  bool
	taken    int64 // when it was last seen to have taken more, or to have more to take
}

// look notes whether the peer has taken more. Time limits on writing start again
// with every byte that it takes.
func (l *liveness) look(now int64) {
	if l.delivers == nil {
		return
	}
	progress, waiting := l.delivers.Delivered()
	if waiting > 0 && (!l.waiting || progress != l.progress) {
		l.taken = now
	}
	l.progress, l.waiting = progress, waiting > 0
}

// pingLocked asks the peer whether it is there. c.mu is held.
func (c *conn) pingLocked(now int64) {
	l := &c.live
	l.number++
	l.pinged = now
	l.ping = c.out.ping(l.payload())
}

func (l *liveness) payload() (p [8]byte) {
	binary.BigEndian.PutUint64(p[:], l.number)
	return p
}

// pingLeft reports whether the latest PING has been handed to the kernel.
func (c *conn) pingLeft() bool {
	t := c.live.ping
	return !c.out.waits(t) && (c.out.writing == 0 || c.out.batch > t.batch+1)
}

// liveLocked pings the peer if nothing was read for too long, and returns why the
// connection is dead if it is. c.mu is held.
func (c *conn) liveLocked(now int64) error {
	l, last := &c.live, c.in.last.Load()
	past := func(since int64, d time.Duration) bool { return now-since > int64(d) }
	asked := l.pinged > last
	if asked || c.out.writing != 0 || c.unusedLocked(now) {
		l.look(now)
	} else {
		l.waiting = false
	}
	switch {
	case c.out.writing != 0 && past(max(c.out.writing, l.taken), c.o.StallTimeout):
		return errStalled
	case asked && !c.out.crowded.Load() && c.pingLeft() && past(max(l.pinged, l.taken), c.o.PingTimeout):
		return errDead
	case !asked && past(last, c.o.PingInterval):
		c.pingLocked(now)
	}
	return nil
}

// pongLocked is called with an answer to a PING. It reports whether the connection
// is no longer suspect. c.mu is held.
func (c *conn) pongLocked(payload [8]byte) bool {
	if !c.live.suspect || payload != c.live.payload() {
		return false
	}
	c.live.suspect = false
	return true
}

// suspectLocked is called when a request is given up. If it has waited in vain, and
// nothing else was read on its connection meanwhile, the connection may be dead:
// the peer is pinged at once, and no stream is opened until it has answered. c.mu
// is held.
func (s *ClientStream) suspectLocked() {
	c := s.c
	if s.closed || s.id == 0 || !s.unansweredLocked() || c.live.suspect || c.err != nil || c.out.err != nil || c.out.waits(s.head) {
		return
	}
	now := c.now()
	if c.in.last.Load() > s.sentAt || now-s.sentAt < int64(suspectAfter) {
		return
	}
	c.live.suspect = true
	c.pingLocked(now)
}
