package backs

import (
	"sync/atomic"

	"github.com/drawbridge-gateway/drawbridge/bridge/socket"
	"github.com/drawbridge-gateway/drawbridge/bridge/splice"
)

// A roomWait lets an upload wait for its upstream without a goroutine: the engine's loop
// watches the socket. The zero value is ready to use.
type roomWait struct {
	splices *splice.Source // provides the engine; set by each request
	ready   func()         // called when the wait ends
	blocks  bool           // the socket cannot be watched: TryWrite waits

	engine *splice.Engine                // the engine of parked
	parked atomic.Pointer[splice.Parked] // nil until the first wait
}

// wake ends the wait, if there is one.
func (r *roomWait) wake() {
	if p := r.parked.Load(); p != nil {
		p.Wake()
	}
}

// waits reports whether TryWrite and TryFlush wait instead. In a Flow the client has no
// other requests, so its body may hold a goroutine, and moves in large blocks.
func (c *conn1) waits() bool { return c.room.blocks || c.out.InFlow() }

// TryWrite sends bytes of the request's body, as many as possible without a wait. It
// returns how many it has sent or holds. TryFlush reports whether it has sent all that
// the connection held.
func (c *conn1) TryWrite(p []byte) (sent int, err error) {
	if len(p) == 0 {
		return 0, c.out.Err()
	}
	if !c.waits() {
		return c.out.TryWriteBody(p)
	}
	if err := c.out.WriteBody(p); err != nil {
		return 0, err
	}
	return len(p), nil
}

// TryFlush sends buffered bytes, as many as possible without a wait. It reports whether
// none are left.
func (c *conn1) TryFlush() (done bool, err error) {
	if !c.waits() {
		return c.out.TryFlush()
	}
	return true, c.out.Flush()
}

// AwaitRoom waits, without a goroutine, until the connection accepts more bytes or has
// failed. Then ready is called once, in a new goroutine. If there is nothing to wait
// for, AwaitRoom returns false and ready is not called; otherwise it returns true. Until
// ready is called, nothing may be sent.
func (c *conn1) AwaitRoom(atEnd bool, ready func()) bool {
	if c.waits() || atEnd && socket.RoomOf(c.sock).Available() { // the end is sent together with the bytes before it
		return false
	}
	if done, err := c.TryFlush(); err != nil || done && socket.RoomOf(c.sock).Available() {
		return false
	}
	r := &c.room
	p := c.parked()
	if p == nil {
		r.blocks = true
		return false
	}
	r.ready = ready
	socket.RoomOf(c.sock).BeginWait(r.wake)
	if p.Park() != nil {
		r.blocks = true // the connection is most likely closed; then TryWrite says so
		return false
	}
	return true
}

// parked returns the handle for waiting, or nil if the connection is not a kernel socket
// or the system has no epoll.
func (c *conn1) parked() *splice.Parked {
	r, raw := &c.room, socket.RoomOf(c.sock).Raw()
	if r.splices == nil || raw == nil {
		return nil
	}
	engine, err := r.splices.Engine()
	if err != nil {
		return nil
	}
	first := r.engine == nil
	if r.engine != engine { // listeners may have engines of their own
		p := engine.ParkedWriter(raw, func() { go r.ready() })
		if p == nil {
			return nil
		}
		r.engine = engine
		r.parked.Store(p)
	}
	if first {
		c.sock.OnClose(r.wake)
	}
	return r.parked.Load()
}
