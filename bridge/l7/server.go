package l7

import (
	"context"
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/drawbridge-gateway/drawbridge/bridge/accesslog"
	"github.com/drawbridge-gateway/drawbridge/bridge/l7/policy"
	"github.com/drawbridge-gateway/drawbridge/bridge/l7/wire"
	"github.com/drawbridge-gateway/drawbridge/bridge/limit"
	"github.com/drawbridge-gateway/drawbridge/bridge/socket"
	"github.com/drawbridge-gateway/drawbridge/bridge/splice"
)

// ErrServerClosed is what Serve returns after Shutdown or StopAccepting.
var ErrServerClosed = errors.New("l7: server closed")

// Options are a Server's.
type Options struct {
	Listener string // its name, for the logs

	// Table returns the table in force now. It is called once per connection,
	// for the client's TLS and the limits, and once per request. Nil means
	// that the listener is gone: connections are closed, requests get 503.
	Table func() *Table

	// Splices carries upgraded connections. Nil: an Engine of the Server's own.
	Splices *splice.Engine

	// Descriptors counts clients' connections. It may be nil.
	Descriptors *socket.Descriptors

	// AccessLog is told of each request when it is over. It is its owner's to
	// close, after Shutdown. Nil: nobody is told.
	AccessLog *accesslog.Logger

	Logger hclog.Logger // nil discards
}

// A Server serves one HTTP listener.
type Server struct {
	splices  *splice.Source // of upgraded connections
	options  Options
	log      hclog.Logger
	failures failureLog
	counters counters
	limiter  *limit.Limiter
	clock    clock

	// What connections and requests use again.
	buffers   socket.Pool
	requests  pooled[request1]
	decoders  wire.Decoders
	exchanges exchanges
	entropy   policy.Entropy
	replays   pooled[replay]
	keeper    keeper

	ctx    context.Context // of every request; ends when Shutdown gives up waiting
	cancel context.CancelFunc

	stopping chan struct{} // closed with stopped

	mu        sync.Mutex
	stopped   bool // no listener is accepted from any more
	closing   bool // Shutdown was called: no connection is taken any more
	listeners map[net.Listener]bool
	conns     map[*conn]bool
	perClient map[string]int
	drained   chan struct{} // closed when closing and without connections

	stops atomic.Bool // closing, for who does not hold mu

	// work counts the goroutines of the listeners and the connections. It is
	// added to under mu while !closing, or by one of them.
	work sync.WaitGroup
}

// New returns a Server. It must be ended with Shutdown.
func New(o Options) *Server {
	log := o.Logger
	if log == nil {
		log = hclog.NewNullLogger()
	}
	s := &Server{
		options:   o,
		log:       log.Named("l7").With("listener", o.Listener),
		listeners: make(map[net.Listener]bool),
		conns:     make(map[*conn]bool),
		perClient: make(map[string]int),
		drained:   make(chan struct{}),
		splices:   splice.NewSource(o.Splices, 1),
		stopping:  make(chan struct{}),
		limiter:   limit.New(),
	}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	s.clock.began = time.Now()
	s.clock.tick.Store(int64(maxTick))
	return s
}

// Serve accepts connections on ln, which it owns, until Shutdown or
// StopAccepting; then it returns ErrServerClosed. Connections go on. It may be
// called for several listeners.
func (s *Server) Serve(ln net.Listener) error {
	s.mu.Lock()
	if s.stopped {
		s.mu.Unlock()
		ln.Close()
		return ErrServerClosed
	}
	s.listeners[ln] = true
	s.work.Add(1)
	s.mu.Unlock()
	defer s.work.Done()
	defer ln.Close()

	err := socket.Accept(ln, s.stopping, s.log, s.accept)
	select {
	case <-s.stopping:
		return ErrServerClosed
	default:
		return err
	}
}

// StopAccepting closes every listener given to Serve, for good. Connections go
// on.
func (s *Server) StopAccepting() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stopAcceptingLocked()
}

func (s *Server) stopAcceptingLocked() {
	if s.stopped {
		return
	}
	s.stopped = true
	close(s.stopping)
	for ln := range s.listeners {
		delete(s.listeners, ln)
		ln.Close()
	}
}

// Shutdown stops accepting, lets requests in flight and upgraded connections
// come to their end, and returns when all are closed. Kept-alive connections
// are closed when idle, HTTP/2 clients are told to go away. When ctx ends,
// whatever is left is cut off, and the error is ctx's. Either way every
// goroutine of the Server has ended when it returns.
func (s *Server) Shutdown(ctx context.Context) error {
	s.mu.Lock()
	first := !s.closing
	s.closing = true
	s.stops.Store(true)
	s.stopAcceptingLocked()
	if first && len(s.conns) == 0 {
		close(s.drained)
	}
	s.mu.Unlock()
	for _, c := range s.open() {
		c.finish()
	}

	var err error
	select {
	case <-s.drained:
	case <-ctx.Done():
		err = ctx.Err()
	}

	s.cancel()
	for _, c := range s.open() {
		c.cut(errShutdown)
	}
	s.work.Wait()
	s.stopClock()
	s.splices.Close()
	return err
}

// errShutdown ends what Shutdown does not wait for any more.
var errShutdown = errors.New("the server shuts down")

// open returns the connections that are open.
func (s *Server) open() []*conn {
	s.mu.Lock()
	defer s.mu.Unlock()
	conns := make([]*conn, 0, len(s.conns))
	for c := range s.conns {
		conns = append(conns, c)
	}
	return conns
}
