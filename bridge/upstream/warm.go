package upstream

import (
	"context"
	"net"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/drawbridge-gateway/drawbridge/bridge/socket"
	"github.com/drawbridge-gateway/drawbridge/certs"
)

// warmAge is how long a connection is kept ready by default: less than the
// minute after which many servers close a silent connection.
const warmAge = 50 * time.Second

// A warmPool keeps unused TLS connections to one endpoint ready, after their
// handshakes. It hands out the oldest first.
//
// Its worker dials them, replaces taken ones, and closes those that are too old
// or that the peer closed. No goroutine watches a single connection: the worker
// checks all of them periodically, and take checks the connection that it hands
// out.
//
// A nil warmPool keeps no connections.
type warmPool struct {
	warmEndpoint
	worker worker
	wake   chan struct{}
	slots  chan struct{} // holds a token for each dial in progress; shared

	mu sync.Mutex
	warmPolicy
	warmStock
	retired bool // end was called
}

// A warmEndpoint is the interface of a warmPool to its endpoint. Its functions
// must not block, except dial.
type warmEndpoint struct {
	log hclog.Logger

	dial        func(ctx context.Context, holder Holder) (net.Conn, error)
	look        func(net.Conn) (received bool, err error) // an error means that the connection is closed
	invalid     func(net.Conn) bool                       // whether the connection's peer no longer verifies
	down        func() bool
	unavailable func() bool // whether the endpoint takes no traffic, for any reason
	scarce      func() bool // whether descriptors are short, or a limit is reached
	idle        func(int)   // changes the number of ready connections; nil: not counted
	replied     func()      // called when the endpoint's data shows that it accepted the gateway
	lost        func(error) // receives the errors of look
}

func newWarmPool(size int, maxAge time.Duration, slots chan struct{}) *warmPool {
	if maxAge == 0 {
		maxAge = warmAge
	}
	if slots == nil {
		slots = make(chan struct{}, maxFills)
	}
	return &warmPool{
		warmEndpoint: warmEndpoint{
			log: hclog.NewNullLogger(), unavailable: func() bool { return false }, invalid: func(net.Conn) bool { return false },
		},
		warmPolicy: newWarmPolicy(size),
		warmStock:  warmStock{maxAge: maxAge},
		slots:      slots,
		wake:       make(chan struct{}, 1),
	}
}

// keepWarm gives the endpoint a warmPool.
func (e *Endpoint) keepWarm() {
	o := &e.upstream.options
	var buffers socket.Pool
	e.warm = newWarmPool(o.Warm, o.WarmAge, o.Filling)
	e.warm.log = e.upstream.log.With("endpoint", e.Address())
	e.warm.dial = func(ctx context.Context, holder Holder) (net.Conn, error) {
		if err := e.acquireConnection(); err != nil {
			return nil, err
		}
		conn, err := e.dialCounted(ctx, Stream, "", holder)
		if err == nil {
			socket.Of(conn).Stream(&buffers)
		}
		return conn, err
	}
	e.warm.look = look
	e.warm.invalid = func(conn net.Conn) bool { return socket.Of(conn).Invalid() != nil }
	e.warm.down = func() bool { return e.health.load() == Down }
	e.warm.scarce = func() bool {
		return !o.Descriptors.Room() || !e.connections.hasRoom(0) || !e.upstream.connections.hasRoom(0)
	}
	if e.upstream.LimitsConnections() {
		e.warm.idle = e.NoteIdle
	}
	e.warm.unavailable = func() bool { return !e.isUsable() }
	e.warm.replied = e.NoteReply
	e.warm.lost = func(err error) {
		if certs.IsAlert(err) { // a TLS 1.3 server rejects our certificate after the handshake
			e.NoteFailure(err)
		}
		e.upstream.log.Debug("warm connection closed", "endpoint", e.Address(), "error", err)
	}
}

// start starts the worker. Later calls have no effect.
func (w *warmPool) start() {
	if w == nil {
		return
	}
	if ctx, ok := w.worker.begin(); ok {
		w.worker.run(ctx, w.log, "keeping warm connections", w.run)
	}
}

// end closes the connections for good; wait waits for the worker.
func (w *warmPool) end() {
	if w == nil {
		return
	}
	w.mu.Lock()
	w.retired = true
	w.mu.Unlock()
	w.worker.end()
}

// wait returns when all background work has ended, which is soon after end was
// called.
func (w *warmPool) wait() {
	if w != nil {
		w.worker.wait()
	}
}

// take hands out a connection that appears to be alive, or nil if none is
// ready. The caller owns it.
func (w *warmPool) take() net.Conn {
	if w == nil {
		return nil
	}
	dead := false
	for {
		c := w.pop(time.Now())
		if c == nil {
			w.missed.Add(1)
			w.noteTake(false, dead)
			return nil
		}
		if w.invalid(c.Conn) {
			c.Close()
			continue
		}
		if _, err := w.look(c.Conn); err != nil {
			dead = true
			w.discard(c, err)
			continue
		}
		w.used.Add(1)
		w.noteTake(true, dead)
		return c.Conn
	}
}

// pop removes the oldest connection that can be handed out.
func (w *warmPool) pop(now time.Time) *warmConn {
	if w.unavailable() || w.down() {
		return nil
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	defer w.report(w.idle)
	return w.oldest(now)
}

// noteTake records a take in the policy and wakes the worker to replace it.
func (w *warmPool) noteTake(used, dead bool) {
	if !used && !dead {
		return
	}
	now := time.Now()
	w.mu.Lock()
	if used {
		w.noteUsed(now)
	}
	if dead {
		w.closing.grow(now)
	}
	w.mu.Unlock()
	w.signal()
}

// drop closes the oldest ready connection to make room, and reports whether
// there was one.
func (w *warmPool) drop() bool {
	if w == nil {
		return false
	}
	c := w.popAny()
	if c == nil {
		return false
	}
	w.expired.Add(1)
	c.Close()
	return true
}

func (w *warmPool) popAny() *warmConn {
	w.mu.Lock()
	defer w.mu.Unlock()
	defer w.report(w.idle)
	return w.oldest(time.Time{})
}

// discard closes a dead connection that was already removed from the ready
// ones.
func (w *warmPool) discard(c *warmConn, err error) {
	w.closed.Add(1)
	c.Close()
	w.lost(err)
}

// signal wakes the worker. It never blocks.
func (w *warmPool) signal() {
	if w == nil {
		return
	}
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// status describes the warm connections; nil without a pool.
func (w *warmPool) status() *Warm {
	if w == nil {
		return nil
	}
	w.mu.Lock()
	ready := len(w.ready)
	w.mu.Unlock()
	return &Warm{
		Size:    uint64(w.size),
		Ready:   uint64(ready),
		Used:    w.used.Load(),
		Missed:  w.missed.Load(),
		Expired: w.expired.Load(),
		Closed:  w.closed.Load(),
	}
}
