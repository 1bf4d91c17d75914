package http2

import (
	"encoding/binary"
	"time"
)

// suspectAfter is the minimum wait that makes a connection suspect: a request
// was given up after waiting this long, and nothing was read on the connection
// meanwhile.
const suspectAfter = time.Second / 4

// A deliverer is a connection that knows how much of the written data its peer
// has taken. progress changes whenever the peer takes more; waiting is the
// number of bytes not yet taken.
type deliverer interface {
	Delivered() (progress uint64, waiting int)
}

// A liveness records whether the peer still answers and still reads. Silence
// counts from the last read, because writing says nothing about the peer. It is
// guarded by the connection's mu.
type liveness struct {
	delivers deliverer // nil if the connection is not a deliverer

	pingedAt int64  // when the latest PING was queued, or 0
	ping     token  // the frame of that PING
	number   uint64 // the payload of that PING
	suspect  bool   // see suspectLocked

	// These fields hold the peer's progress at the last check while data was
	// waiting.
	progress       uint64
	waiting        bool
	sendProgressAt int64 // when the peer last took data, or data began to wait
}

// observe records whether the peer has taken more. Time limits on writing restart
// with every byte taken.
func (l *liveness) observe(now int64) {
	if l.delivers == nil {
		return
	}
	progress, waiting := l.delivers.Delivered()
	if waiting > 0 && (!l.waiting || progress != l.progress) {
		l.sendProgressAt = now
	}
	l.progress, l.waiting = progress, waiting > 0
}

// pingLocked sends a PING. c.mu is held.
func (c *conn) pingLocked(now int64) {
	l := &c.live
	l.number++
	l.pingedAt = now
	l.ping = c.out.ping(l.payload())
}

func (l *liveness) payload() (p [8]byte) {
	binary.BigEndian.PutUint64(p[:], l.number)
	return p
}

// pingLeft reports whether the latest PING was written to the kernel.
func (c *conn) pingLeft() bool {
	t := c.live.ping
	return !c.out.waits(t) && (c.out.writing == 0 || c.out.batch > t.batch+1)
}

// liveLocked pings the peer after too long a silence, and returns an error if
// the connection is dead. c.mu is held.
func (c *conn) liveLocked(now int64) error {
	l, last := &c.live, c.in.last.Load()
	past := func(since int64, d time.Duration) bool { return now-since > int64(d) }
	pingPending := l.pingedAt > last
	if pingPending || c.out.writing != 0 || c.unusedLocked(now) {
		l.observe(now)
	} else {
		l.waiting = false
	}
	switch {
	case c.out.writing != 0 && past(max(c.out.writing, l.sendProgressAt), c.o.StallTimeout):
		return errStalled
	case pingPending && !c.out.repliesFull.Load() && c.pingLeft() && past(max(l.pingedAt, l.sendProgressAt), c.o.PingTimeout):
		return errDead
	case !pingPending && past(last, c.o.PingInterval):
		c.pingLocked(now)
	}
	return nil
}

// pongLocked handles the answer to a PING. It reports whether the connection is
// no longer suspect. c.mu is held.
func (c *conn) pongLocked(payload [8]byte) bool {
	if !c.live.suspect || payload != c.live.payload() {
		return false
	}
	c.live.suspect = false
	return true
}

// suspectLocked is called when a request is given up. If no response arrived,
// and nothing else was read on the connection meanwhile, the connection may be
// dead. So the peer gets a PING at once, and no stream is opened until it
// answers. c.mu is held.
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
