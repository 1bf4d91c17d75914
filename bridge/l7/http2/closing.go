package http2

import (
	"errors"
	"os"
	"time"
)

const (
	// lastWriteTime bounds how long a peer may take for what is sent to it last
	// when a connection ends for any other reason than that its work is done.
	lastWriteTime = time.Second

	// lingerTime is for how long, at a time, a connection that has ended waits for
	// the client to close it: were it closed with bytes unread, the client would
	// be sent a reset, which may overtake what it has not read yet.
	lingerTime = time.Second / 2

	// maxDiscarded bounds what is read of a client meanwhile.
	maxDiscarded = 256 << 10
)

// close sends what is left and closes the connection.
func (c *conn) close(err *Error) {
	finished := errors.Is(err, errRetired) || errors.Is(err, errIdle)
	if !finished || c.client != nil {
		_ = c.nc.SetWriteDeadline(time.Now().Add(lastWriteTime))
	}
	c.out.close() // tick ends it if the peer takes nothing
	c.timer.Stop()
	if c.server != nil && err.mayBeTold() {
		if h, ok := c.nc.(interface{ CloseWrite() error }); ok {
			_ = h.CloseWrite()
		}
		c.linger(finished)
	}
	c.nc.Close()
	c.in.release()
	if c.client != nil {
		c.client.changed()
	}
}

// linger reads and drops what the client sends, until it closes its side or has had
// the time to read what it was sent. That time starts again with every byte that it
// takes, if the connection has finished its work.
func (c *conn) linger(finished bool) {
	l, start := c.live, c.now() // nobody else uses c.live any more
	l.taken = start
	for left := maxDiscarded; left > 0; {
		_ = c.nc.SetReadDeadline(time.Now().Add(lingerTime))
		n, err := c.in.drop(left)
		left -= n
		if err == nil {
			continue
		}
		now := c.now()
		l.look(now)
		if !errors.Is(err, os.ErrDeadlineExceeded) || !finished || !l.waiting || now-l.taken > int64(c.o.StallTimeout) {
			return
		}
	}
}

// endStalledWriteLocked ends the last write of a connection that is over, if the
// peer has taken nothing for too long. c.mu is held.
func (c *conn) endStalledWriteLocked(now int64) {
	if c.out.writing == 0 {
		return
	}
	c.live.look(now)
	if now-max(c.out.writing, c.live.taken) > int64(c.o.StallTimeout) {
		_ = c.nc.SetWriteDeadline(longAgo)
	}
}

// finishedLocked reports whether the connection has had nothing to do for its idle
// time: no stream, and nothing that the peer has yet to take. What the kernel holds
// would be lost with the connection if the peer sent something meanwhile. c.mu is
// held.
func (c *conn) finishedLocked(now int64) bool {
	return c.unusedLocked(now) && (!c.live.waiting || now-c.live.taken > int64(c.o.StallTimeout))
}

// unusedLocked reports whether the connection was given nothing to do for its idle
// time. c.mu is held.
func (c *conn) unusedLocked(now int64) bool {
	return c.idleLocked() && !c.out.sending && now-max(c.idleSince, c.out.lastBulk) > int64(c.o.IdleTimeout)
}
