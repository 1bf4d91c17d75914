package upstream

import (
	"context"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/drawbridge-gateway/drawbridge/bridge/socket"
)

const (
	// warmAge is how long a connection is kept ready if nothing is said: less
	// than the minute after which many servers close one that says nothing.
	warmAge = 50 * time.Second

	// maxFills is how many connections to one endpoint are made ready at once if
	// more than half are missing, and leisurelyFills if not.
	maxFills       = 8
	leisurelyFills = 1

	// lull is how long after a client has come those that were taken are
	// replaced, unless more than half or mostShort are missing, or one has been
	// for longestLull: a handshake takes the processor from those who are being
	// served, and several in a row do so to fewer.
	lull        = 10 * time.Millisecond
	longestLull = 50 * time.Millisecond
	mostShort   = 12

	// freshFor is how long a connection is young, and looked at every
	// lookFresh: a server that refuses our certificate says so at once. Later it
	// is every lookOld.
	freshFor  = 5 * time.Second
	lookFresh = time.Second
	lookOld   = 5 * time.Second
)

// A warmPool keeps TLS connections to one endpoint ready: their handshakes are
// over, and nobody uses them yet. The longest ready is given out first.
//
// A goroutine of its own makes them, replaces what was taken, and lets go of
// those that are too old or that the peer has closed. No other watches them:
// they are looked at now and then, and when they are taken.
//
// A nil warmPool keeps none.
type warmPool struct {
	size   int
	maxAge time.Duration

	// What is asked of the endpoint. Dial makes a connection; retire may be
	// called from then on, by any goroutine, if it is to get nothing to do.
	dial    func(ctx context.Context, retire func()) (net.Conn, error)
	look    func(net.Conn) (heard bool, err error) // an error: it is over
	down    func() bool
	barred  func() bool // the endpoint takes no traffic, whether it is down or not
	scarce  func() bool // others need what connections are made of, or no more may be made
	idle    func(int)   // so many more are ready; nil: nobody asks
	replied func()      // the endpoint has sent something that accepts us
	lost    func(error) // what look found

	filling chan struct{} // holds one for each connection being made; shared
	wake    chan struct{}

	used, missed, expired, closed atomic.Uint64

	mu        sync.Mutex
	cancel    context.CancelFunc // of run; nil until start
	ended     chan struct{}      // closed when run has returned
	stopped   bool
	ready     []*warmConn // the oldest first
	told      int         // how many of them idle was told of
	trial     *warmConn   // made while the endpoint is down: does it accept us?
	making    int
	proven    bool      // one was made
	refilling bool      // until none is missing any more
	looked    time.Time // when those that are ready were last looked at
	taken     time.Time // when the last was
	short     time.Time // since when some that were taken are missing; zero: none is
	failing   backoff   // connections that could not be made
	closing   backoff   // connections that were made, and closed by the peer
}

// A warmConn is one connection of a warmPool. All is guarded by its lock.
type warmConn struct {
	net.Conn
	made, end time.Time // it is not given out after end
	drained   bool      // it is not to be given out at all
}

func newWarmPool(size int, maxAge time.Duration, filling chan struct{}) *warmPool {
	if maxAge == 0 {
		maxAge = warmAge
	}
	if filling == nil {
		filling = make(chan struct{}, maxFills)
	}
	return &warmPool{
		size:    size,
		maxAge:  maxAge,
		filling: filling,
		wake:    make(chan struct{}, 1),
		barred:  func() bool { return false },
		failing: backoff{first: time.Second, most: 30 * time.Second},
		closing: backoff{first: time.Second, most: time.Minute},
	}
}

// keepWarm gives the endpoint a warmPool.
func (e *Endpoint) keepWarm() {
	o := &e.upstream.options
	var buffers socket.Pool
	e.warm = newWarmPool(o.Warm, o.WarmAge, o.Filling)
	e.warm.dial = func(ctx context.Context, retire func()) (net.Conn, error) {
		if err := e.takePlace(); err != nil {
			return nil, err
		}
		conn, err := e.dialCounted(ctx, Stream, "", retire)
		if err == nil {
			socket.Of(conn).Stream(&buffers)
		}
		return conn, err
	}
	e.warm.look = look
	e.warm.down = func() bool { return e.health.load() == Down }
	e.warm.scarce = func() bool {
		return !o.Descriptors.Room() || !e.connections.fewer(0) || !e.upstream.connections.fewer(0)
	}
	if e.upstream.LimitsConnections() {
		e.warm.idle = e.NoteIdle
	}
	e.warm.barred = func() bool { return !e.isWell() }
	e.warm.replied = e.NoteReply
	e.warm.lost = func(err error) {
		if refused(err) {
			e.NoteFailure(err)
		}
		e.upstream.log.Debug("warm connection is over", "endpoint", e.Address(), "error", err)
	}
}

// start begins to keep connections ready, unless that was done before.
func (w *warmPool) start() {
	if w == nil {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.stopped || w.cancel != nil {
		return
	}
	var ctx context.Context
	ctx, w.cancel = context.WithCancel(context.Background())
	w.ended = make(chan struct{})
	go func() {
		defer close(w.ended)
		w.run(ctx)
	}()
}

// end has the connections closed, for good; wait waits for it.
func (w *warmPool) end() {
	if w == nil {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.stopped = true
	if w.cancel != nil {
		w.cancel()
	}
}

// wait returns when everything that start began has ended, which is soon after
// end was called.
func (w *warmPool) wait() {
	if w == nil {
		return
	}
	w.mu.Lock()
	ended := w.ended
	w.mu.Unlock()
	if ended != nil {
		<-ended
	}
}

// take gives out a connection that is alive, as far as can be known; nil if none
// is ready. The caller owns it.
func (w *warmPool) take() net.Conn {
	if w == nil {
		return nil
	}
	dead := false
	for {
		c := w.pop(time.Now())
		if c == nil {
			w.missed.Add(1)
			w.settle(false, dead)
			return nil
		}
		if _, err := w.look(c.Conn); err != nil {
			dead = true
			w.bury(c, err)
			continue
		}
		w.used.Add(1)
		w.settle(true, dead)
		return c.Conn
	}
}

// pop takes the oldest connection that may be given out from the ready ones.
func (w *warmPool) pop(now time.Time) *warmConn {
	if w.barred() || w.down() {
		return nil
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	defer w.tell()
	for i, c := range w.ready {
		if now.Before(c.end) {
			w.ready = slices.Delete(w.ready, i, i+1)
			return c
		}
	}
	return nil
}

// tell says how many are ready, if that has changed. mu is held.
func (w *warmPool) tell() {
	if more := len(w.ready) - w.told; more != 0 && w.idle != nil {
		w.told = len(w.ready)
		w.idle(more)
	}
}

// drop closes the oldest of those that are ready, for one that is needed more,
// and reports whether there was one.
func (w *warmPool) drop() bool {
	if w == nil {
		return false
	}
	w.mu.Lock()
	if len(w.ready) == 0 {
		w.mu.Unlock()
		return false
	}
	c := w.ready[0]
	w.ready = slices.Delete(w.ready, 0, 1)
	w.tell()
	w.mu.Unlock()
	w.expired.Add(1)
	c.Close()
	return true
}

// settle notes what a take came to, and has the rest replaced.
func (w *warmPool) settle(used, dead bool) {
	if !used && !dead {
		return
	}
	now := time.Now()
	w.mu.Lock()
	if used {
		w.closing.ease(w.size)
		w.taken = now
		if w.short.IsZero() {
			w.short = now
		}
	}
	if dead {
		w.closing.strike(now)
	}
	w.mu.Unlock()
	w.signal()
}

// bury closes a connection, not among the ready any more, that is over.
func (w *warmPool) bury(c *warmConn, err error) {
	w.closed.Add(1)
	c.Close()
	w.lost(err)
}

// signal has run look at what there is to do. It never blocks.
func (w *warmPool) signal() {
	if w == nil {
		return
	}
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// status tells what became of the connections; nil if none is kept.
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
