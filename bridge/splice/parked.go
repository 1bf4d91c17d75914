package splice

import "syscall"

// A Parked is a connection that a loop watches, so that its server needs no goroutine to
// wait for the next bytes, or for room to write. Its methods may be called concurrently.
type Parked struct {
	loop *loop
	room bool // the loop waits until the socket can be written, not read
	raw  syscall.RawConn
	wake func()
	slot int32 // guarded by loop.mu; -1 when not parked
}

// Parked returns a handle on a socket's raw connection, not parked yet. Without epoll
// it returns nil: nothing can be parked.
//
// A loop calls wake when the socket has bytes to read, or its stream has ended or
// failed; wake must not block. Wake may be called spuriously. It is called at most once
// for each Park. Closing the connection does not call wake, so the caller that closes
// it calls Leave.
func (e *Engine) Parked(raw syscall.RawConn, wake func()) *Parked {
	if len(e.loops) == 0 {
		return nil
	}
	return &Parked{loop: e.chooseLoop(), raw: raw, wake: wake, slot: -1}
}

// ParkedWriter is Parked for a connection whose server waits for room to write: a loop
// calls wake when the kernel accepts more bytes, or the connection has failed.
func (e *Engine) ParkedWriter(raw syscall.RawConn, wake func()) *Parked {
	p := e.Parked(raw, wake)
	if p != nil {
		p.room = true
	}
	return p
}

// Park starts to watch the connection. When Park returns nil, wake may already have
// been called. If it returns an error, wake was not called and will not be.
func (p *Parked) Park() error {
	if err := p.loop.park(p); err != nil && p.Leave() {
		return err
	}
	return nil
}

// Wake calls wake immediately, if the connection is parked.
func (p *Parked) Wake() {
	if p.Leave() {
		p.wake()
	}
}

// Leave stops watching. It reports whether the connection was parked: if so, wake was
// not called and will not be. Leave may be called on a closed connection.
func (p *Parked) Leave() bool { return p.loop.leaveParked(p) }
