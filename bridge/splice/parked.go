package splice

import "syscall"

// A Parked is a connection that a loop watches while nobody else does: it needs
// no goroutine to be told of what comes. Its methods may be called concurrently.
type Parked struct {
	loop *loop
	raw  syscall.RawConn
	wake func()
	slot int32 // guarded by loop.mu; -1: it is not parked
}

// Parked returns a connection that can be parked; it is not yet. Raw is a
// socket's. Where there is no epoll it returns nil: nothing can be.
//
// Wake is called, by a loop and so it must not block, when there is something to
// be read, or the stream has ended, or failed. It may be called for nothing. It
// is not called again unless the connection is parked again. Closing the
// connection wakes nobody: whoever does calls Leave.
func (e *Engine) Parked(raw syscall.RawConn, wake func()) *Parked {
	if len(e.loops) == 0 {
		return nil
	}
	return &Parked{loop: e.least(), raw: raw, wake: wake, slot: -1}
}

// Park has the connection watched. When it returns nil wake may have been called
// already; with an error it was not called, and will not be.
func (p *Parked) Park() error {
	if err := p.loop.park(p); err != nil && p.Leave() {
		return err
	}
	return nil
}

// Wake calls wake now, if the connection is parked.
func (p *Parked) Wake() {
	if p.Leave() {
		p.wake()
	}
}

// Leave ends the watch. It reports whether there was one: if so, wake was not
// called and will not be. It may be called when the connection is closed.
func (p *Parked) Leave() bool { return p.loop.leaveParked(p) }
