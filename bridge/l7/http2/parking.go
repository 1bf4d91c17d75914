package http2

import (
	"os"
	"time"
)

// parkTime is how long a connection must be idle before its reading goroutine
// is released.
const parkTime = time.Second

// A parking is the state of the goroutine that reads a server's connection.
type parking int

const (
	reading parking = iota
	leaving         // its read was interrupted so that it can park
	parked          // Serve has returned ErrParked, or is about to
)

// parkLocked makes the reading goroutine park if the connection is idle. c.mu
// is held.
func (c *ServerConn) parkLocked(now int64) {
	if c.o.Wake == nil || c.parking != reading || c.err != nil || !c.in.gotSettings.Load() || !c.idleLocked() || c.out.sending ||
		c.in.begun.Load() != 0 || now-max(c.in.last.Load(), c.idleSince) < int64(parkTime) {
		return
	}
	c.parking = leaving
	_ = c.nc.SetReadDeadline(longAgo) // fails only on a closed connection, and then reading fails too
}

// freeLargeLocked interrupts a read that has waited for a while with a large buffer.
// The read resumes with a small one. c.mu is held.
func (c *conn) freeLargeLocked(now int64) {
	if c.in.holdsLarge.Load() && c.err == nil && c.out.err == nil && now-c.in.last.Load() > int64(parkTime) {
		_ = c.nc.SetReadDeadline(longAgo) // fails only on a closed connection, and then reading fails too
	}
}

// interrupted is called when a deadline has interrupted a read; between says
// that no frame was begun. It returns nil to continue reading, ErrParked to
// park, and otherwise why the read failed.
func (c *conn) interrupted(between bool) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil || c.out.err != nil {
		return os.ErrDeadlineExceeded
	}
	_ = c.nc.SetReadDeadline(time.Time{}) // fails only on a closed connection
	if c.parking == reading {
		return nil
	}
	if !between || !c.idleLocked() {
		c.parking = reading
		return nil
	}
	c.parking = parked
	return ErrParked
}
