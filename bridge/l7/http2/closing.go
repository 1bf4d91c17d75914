package http2

import (
	"errors"
	"os"
	"time"
)

const (
	// lastWriteTime bounds the last write of a connection that ends before its
	// work is done.
	lastWriteTime = time.Second

	// lingerTime is how long, at a time, an ended connection waits for the
	// client to close it. Closing it with unread bytes, or before the client
	// writes again, would send a reset, which may overtake data that the
	// client has not read yet.
	lingerTime = time.Second / 2

	// finishedLingerTime is lingerTime for a connection that has finished its
	// work. A client that pauses for less than it loses no response (nginx:
	// lingering_timeout).
	finishedLingerTime = 5 * time.Second

	// maxLinger bounds the whole wait, which restarts with every frame that the
	// client sends (nginx: lingering_time).
	maxLinger = 30 * time.Second

	// maxDiscarded bounds the bytes that linger reads from the client.
	maxDiscarded = 256 << 10
)

// close sends the queued frames and closes the connection.
func (c *conn) close(err *Error) {
	finished := errors.Is(err, errRetired) || errors.Is(err, errIdle)
	if !finished || c.client != nil {
		_ = c.nc.SetWriteDeadline(time.Now().Add(lastWriteTime))
	}
	c.out.close() // tick interrupts it if the peer stops reading
	c.timer.Stop()
	if c.server != nil && err.canBeSent() {
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

// linger reads and drops what the client sends, until the client closes its
// side or has had time to read the last frames. If the connection finished its
// work, that time restarts with every byte the client takes.
func (c *conn) linger(finished bool) {
	l, now := c.live, c.now() // no other goroutine uses c.live now
	l.sendProgressAt = now
	pause := int64(lingerTime)
	if finished {
		pause = int64(finishedLingerTime)
	}
	end := now + int64(maxLinger)
	for left := maxDiscarded; left > 0; {
		_ = c.nc.SetReadDeadline(time.Now().Add(time.Duration(min(pause, end-now))))
		n, err := c.in.drop(left)
		left -= n
		if now = c.now(); err == nil && now < end {
			continue
		}
		if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
			return
		}
		l.observe(now)
		if !finished || !l.waiting || now-l.sendProgressAt > int64(c.o.StallTimeout) {
			return
		}
		end = now + int64(maxLinger)
	}
}

// endStalledWriteLocked interrupts the last write of an ended connection if the
// peer has stopped reading. c.mu is held.
func (c *conn) endStalledWriteLocked(now int64) {
	if c.out.writing == 0 {
		return
	}
	c.live.observe(now)
	if now-max(c.out.writing, c.live.sendProgressAt) > int64(c.o.StallTimeout) {
		_ = c.nc.SetWriteDeadline(longAgo)
	}
}

// finishedLocked reports whether the connection has been idle for its idle
// time, and the peer has taken everything sent to it. Without the second
// condition, a frame that arrives during the close would make the kernel
// discard unsent data. c.mu is held.
func (c *conn) finishedLocked(now int64) bool {
	return c.unusedLocked(now) && (!c.live.waiting || now-c.live.sendProgressAt > int64(c.o.StallTimeout))
}

// unusedLocked reports whether the connection has had no work for its idle
// time. c.mu is held.
func (c *conn) unusedLocked(now int64) bool {
	return c.idleLocked() && !c.out.sending && now-max(c.idleSince, c.out.lastBulk) > int64(c.o.IdleTimeout)
}
