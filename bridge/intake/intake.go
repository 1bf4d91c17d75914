package intake

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"runtime/debug"
	"sync"
	"sync/atomic"

	"github.com/hashicorp/go-hclog"

	"github.com/drawbridge-gateway/drawbridge/bridge/limit"
	"github.com/drawbridge-gateway/drawbridge/bridge/socket"
)

var (
	// ErrClosed is what Serve returns after StopAccepting or Shutdown.
	ErrClosed = errors.New("intake: closed")

	// ErrShutdown is the cause of what Shutdown does not wait for any more.
	ErrShutdown = errors.New("the server shuts down")

	// errPanic is the cause of the end of a connection whose goroutine panicked.
	errPanic = errors.New("panic while serving the connection")
)

// An Owner serves one connection. Its methods may be called at any time from Enter
// until Leave, and must not block.
type Owner interface {
	// Drain is called when Shutdown begins: the connection is to end as soon as
	// what it does is done.
	Drain()

	// Cut ends the connection at once.
	Cut(cause error)
}

// Options are an Intake's.
type Options struct {
	Descriptors *socket.Descriptors // counts clients' connections; may be nil
	Limiter     *limit.Limiter      // keeps to Rules.Rate and RatePerClient
	Logger      hclog.Logger
}

// An Intake takes in the connections of one listener. All methods may be called
// concurrently.
type Intake struct {
	options Options
	log     hclog.Logger
	count   counters

	ctx    context.Context
	cancel context.CancelFunc

	stopping chan struct{}  // closed by StopAccepting
	closes   atomic.Bool    // Shutdown was called
	work     sync.WaitGroup // accept loops, and connections until Done

	mu        sync.Mutex
	stopped   bool // nothing is accepted any more
	closing   bool // no connection is taken any more
	listeners map[net.Listener]struct{}
	conns     map[*Conn]struct{}
	perClient map[netip.Addr]int
	drained   chan struct{} // closed when closing and without connections
}

// New returns an Intake. It must be ended with Shutdown.
func New(o Options) *Intake {
	i := &Intake{
		options:   o,
		log:       o.Logger,
		stopping:  make(chan struct{}),
		listeners: make(map[net.Listener]struct{}),
		conns:     make(map[*Conn]struct{}),
		perClient: make(map[netip.Addr]int),
		drained:   make(chan struct{}),
	}
	i.ctx, i.cancel = context.WithCancel(context.Background())
	return i
}

// Context ends when Shutdown stops waiting.
func (i *Intake) Context() context.Context { return i.ctx }

// Closing reports whether Shutdown was called.
func (i *Intake) Closing() bool { return i.closes.Load() }

// Serve passes each connection of ln to take, which owns it and must not block. It
// owns ln, and closes it before it returns: ErrClosed after StopAccepting or
// Shutdown, else the error that accepting failed with. Connections go on.
func (i *Intake) Serve(ln net.Listener, take func(net.Conn)) error {
	defer ln.Close()
	if !i.addListener(ln) {
		return ErrClosed
	}
	defer i.removeListener(ln)
	err := socket.Accept(ln, i.stopping, i.log, take)
	select {
	case <-i.stopping:
		return ErrClosed
	default:
		return err
	}
}

func (i *Intake) addListener(ln net.Listener) bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.stopped {
		return false
	}
	i.listeners[ln] = struct{}{}
	i.work.Add(1)
	return true
}

func (i *Intake) removeListener(ln net.Listener) {
	i.mu.Lock()
	defer i.mu.Unlock()
	delete(i.listeners, ln)
	i.work.Done()
}

// StopAccepting closes the listeners and makes Serve return. Connections go on,
// those that were just accepted too. It cannot be undone.
func (i *Intake) StopAccepting() {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.stopLocked()
}

func (i *Intake) stopLocked() {
	if i.stopped {
		return
	}
	i.stopped = true
	close(i.stopping)
	for ln := range i.listeners {
		ln.Close()
	}
}

// Shutdown stops accepting, drains every connection and waits until all have ended.
// If ctx ends before that, it cuts those that are left and returns ctx's error.
// Either way every Serve has returned, and Done was called for every connection,
// when it returns.
func (i *Intake) Shutdown(ctx context.Context) error {
	i.mu.Lock()
	first := !i.closing
	i.closing = true
	i.closes.Store(true)
	i.stopLocked()
	if first && len(i.conns) == 0 {
		close(i.drained)
	}
	i.mu.Unlock()
	i.Each(func(o Owner) { o.Drain() })

	select {
	case <-i.drained:
	case <-ctx.Done():
	}
	i.cancel()
	var err error
	i.Each(func(o Owner) {
		err = ctx.Err()
		o.Cut(ErrShutdown)
	})
	i.work.Wait()
	return err
}

// Each calls f for the owner of each connection there was when it was called.
func (i *Intake) Each(f func(Owner)) {
	var owners []Owner
	i.Walk(func(o Owner) { owners = append(owners, o) })
	for _, o := range owners {
		f(o)
	}
}

// Walk calls f, which must not call the Intake, for the owner of each connection,
// and returns how many there are.
func (i *Intake) Walk(f func(Owner)) int {
	i.mu.Lock()
	defer i.mu.Unlock()
	for c := range i.conns {
		f(c.owner)
	}
	return len(i.conns)
}

// Panicked is for whoever serves c and has recovered from a panic: it logs the
// panic and cuts the connection.
func (i *Intake) Panicked(c *Conn, value any) {
	i.LogPanic(c, value, debug.Stack())
	c.owner.Cut(errPanic)
}

// LogPanic logs a panic that ended a connection.
func (i *Intake) LogPanic(c *Conn, value any, stack []byte) {
	i.log.Error("panic while serving a connection", "client", c.Name(), "panic", value, "stack", string(stack))
}
