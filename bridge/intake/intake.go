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
	"github.com/drawbridge-gateway/drawbridge/bridge/live"
	"github.com/drawbridge-gateway/drawbridge/bridge/socket"
	"github.com/drawbridge-gateway/drawbridge/bridge/validity"
	"github.com/drawbridge-gateway/drawbridge/certs"
)

var (
	// ErrClosed is returned by Serve after StopAccepting or Shutdown.
	ErrClosed = errors.New("intake: closed")

	// ErrShutdown is the cause passed to Cut for connections that Shutdown ends.
	ErrShutdown = errors.New("the server is shutting down")

	// errPanic is the cause passed to Cut after a panic.
	errPanic = errors.New("panic while serving the connection")
)

// An Owner serves one connection. The Intake may call its methods at any time between
// Enter and Leave; they must not block.
type Owner interface {
	// Drain is called when Shutdown begins, and when the client no longer verifies.
	// The connection ends after the work in progress.
	Drain()

	// Work returns how many requests are in progress, and whether a drain would have
	// to wait for the connection. A TCP connection has no requests, and is busy until
	// it ends.
	Work() (requests int, busy bool)

	// Cut ends the connection at once. The cause is a *certs.VerifyError if the client
	// no longer verifies, and live.ErrClosed if an operator closes the connection.
	Cut(cause error)

	// Describe completes the description of the connection. The Intake has already set
	// the number, the start time and the client's addresses.
	Describe(*live.Connection)
}

// Options configure an Intake.
type Options struct {
	Descriptors *socket.Descriptors // counts client connections; may be nil
	Limiter     *limit.Limiter      // enforces Rules.Rate and RatePerClient
	Logger      hclog.Logger

	Listener string        // the name of the listener, for descriptions of connections
	Numbers  *live.Numbers // may be nil

	// Revalidation configures the Set that verifies clients again while their
	// connections are open. Its Logger is ignored: the Set logs to the Intake's
	// Logger.
	Revalidation validity.Options
}

// An Intake admits the connections of one listener and keeps track of them. All methods
// may be called concurrently.
type Intake struct {
	options Options
	log     hclog.Logger
	count   counters
	peers   *validity.Set // the clients, verified or in plaintext

	firsts sync.Pool // holds *[helloBytes]byte, for handshakes

	ctx    context.Context
	cancel context.CancelFunc

	stopping       chan struct{}  // closed by StopAccepting
	shutdownCalled atomic.Bool    // Shutdown was called
	work           sync.WaitGroup // accept loops, and connections until Done

	mu        sync.Mutex
	stopped   bool // StopAccepting or Shutdown was called
	closing   bool // Shutdown was called: no connection enters
	listeners map[net.Listener]struct{}
	conns     map[*Conn]struct{}
	perClient map[netip.Addr]int
	drained   chan struct{} // closed when closing and no connection is left
}

// New returns an Intake. The caller ends it with Shutdown.
func New(o Options) *Intake {
	i := &Intake{
		options:   o,
		firsts:    sync.Pool{New: func() any { return new([helloBytes]byte) }},
		log:       o.Logger,
		stopping:  make(chan struct{}),
		listeners: make(map[net.Listener]struct{}),
		conns:     make(map[*Conn]struct{}),
		perClient: make(map[netip.Addr]int),
		drained:   make(chan struct{}),
	}
	o.Revalidation.Logger = o.Logger
	i.peers = validity.New(o.Revalidation)
	i.ctx, i.cancel = context.WithCancel(context.Background())
	return i
}

// Peers returns the Set that verifies clients again while their connections are
// open.
func (i *Intake) Peers() *validity.Set { return i.peers }

// Plaintext is the Peer of every client that speaks no TLS.
var Plaintext = certs.NewPeer(nil)

// Context returns a context that ends when Shutdown stops waiting for connections.
func (i *Intake) Context() context.Context { return i.ctx }

// Closing reports whether Shutdown was called.
func (i *Intake) Closing() bool { return i.shutdownCalled.Load() }

// Serve passes each connection of ln to take, which owns it and must not block. Serve
// owns ln and closes it before it returns. It returns ErrClosed after StopAccepting or
// Shutdown, and otherwise the error of accepting. Connections continue after Serve has
// returned.
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

// StopAccepting closes the listeners and makes Serve return. Connections continue,
// including those that were just accepted. It cannot be undone.
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

// Shutdown stops accepting, drains every connection and waits until all have ended. If
// ctx ends first, Shutdown cuts the remaining connections and returns ctx's error. When
// it returns, every Serve has returned and Done was called for every connection.
func (i *Intake) Shutdown(ctx context.Context) error {
	i.mu.Lock()
	first := !i.closing
	i.closing = true
	i.shutdownCalled.Store(true)
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

// Each calls f for the owner of each connection that is open when Each is called.
func (i *Intake) Each(f func(Owner)) {
	var owners []Owner
	i.Walk(func(o Owner) { owners = append(owners, o) })
	for _, o := range owners {
		f(o)
	}
}

// Walk calls f for the owner of each connection, and returns the number of connections.
// It holds the Intake's lock, so f must not call the Intake.
func (i *Intake) Walk(f func(Owner)) int {
	i.mu.Lock()
	defer i.mu.Unlock()
	for c := range i.conns {
		f(c.owner)
	}
	return len(i.conns)
}

// Panicked logs a panic of the goroutine that serves c, and cuts the connection. The
// deferred function that recovered from the panic calls it.
func (i *Intake) Panicked(c *Conn, value any) {
	i.LogPanic(c, value, debug.Stack())
	c.owner.Cut(errPanic)
}

// LogPanic logs a panic that ended a connection.
func (i *Intake) LogPanic(c *Conn, value any, stack []byte) {
	i.log.Error("panic while serving a connection", "client", c.Name(), "panic", value, "stack", string(stack))
}
