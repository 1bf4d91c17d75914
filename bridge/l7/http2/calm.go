package http2

import (
	"os"
	"time"
)

// calmTime is how long nothing has gone on when the goroutine that reads is let
// go.
const calmTime = time.Second

// A calm is what the goroutine that reads a server's connection is about.
type calm int

const (
	reading calm = iota
	asked        // to leave
	left         // Serve has returned, or will: nobody reads
)

// calmLocked asks the goroutine that reads to leave if nothing goes on. c.mu is
// held.
func (c *ServerConn) calmLocked(now int64) {
	if c.o.Wake == nil || c.calm != reading || c.err != nil || !c.in.settled.Load() || !c.idleLocked() || c.out.sending ||
		c.in.begun.Load() != 0 || now-max(c.in.last.Load(), c.idleSince) < int64(calmTime) {
		return
	}
	c.calm = asked
	_ = c.nc.SetReadDeadline(longAgo) // fails only if it is closed, and then so does reading
}

// shedLocked interrupts a read that has waited for a while with a large buffer: it
// goes on with a small one. c.mu is held.
func (c *conn) shedLocked(now int64) {
	if c.in.holdsLarge.Load() && c.err == nil && c.out.err == nil && now-c.in.last.Load() > int64(calmTime) {
		_ = c.nc.SetReadDeadline(longAgo) // fails only if it is closed, and then so does reading
	}
}

// disturbed is for when a deadline has ended a read, between frames or not. It
// returns nil if reading goes on, ErrCalm if the goroutine is to leave, and else
// why the read has failed.
func (c *conn) disturbed(between bool) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil || c.out.err != nil {
		return os.ErrDeadlineExceeded
	}
	_ = c.nc.SetReadDeadline(time.Time{}) // as above
	if c.calm == reading {
		return nil
	}
	if !between || !c.idleLocked() {
		c.calm = reading
		return nil
	}
	c.calm = left
	return ErrCalm
}
