package l7

import (
	"context"
	"errors"
	"net"
	"net/http"
	"sync"

	"github.com/hashicorp/go-hclog"

	"github.com/drawbridge-gateway/drawbridge/bridge/socket"
)

// ErrServerClosed is what Serve returns after Shutdown or StopAccepting.
var ErrServerClosed = errors.New("l7: server closed")

// Options are a Server's.
type Options struct {
	Listener string // its name, for the log

	// Table returns the table in force now. It is called once per connection,
	// for the client's TLS and the limits, and once per request. Nil means
	// that the listener is gone: connections are closed, requests get 503.
	Table func() *Table

	// Descriptors counts clients' connections. It may be nil.
	Descriptors *socket.Descriptors

	Logger hclog.Logger // nil discards
}

// A Server serves one HTTP listener.
type Server struct {
	options  Options
	log      hclog.Logger
	failures failureLog
	proxy    http.Handler
	counters counters

	ctx    context.Context // of every request; ends when Shutdown gives up waiting
	cancel context.CancelFunc

	stopping chan struct{} // closed with stopped

	mu        sync.Mutex
	stopped   bool // no listener is accepted from any more
	closing   bool // Shutdown was called: no connection is taken any more
	forced    bool // Shutdown gave up waiting: nothing is begun any more
	listeners map[net.Listener]bool
	conns     map[*conn]bool
	perClient map[string]int
	engines   map[*engine]bool
	current   *engine       // takes new connections; nil before the first
	drained   chan struct{} // closed when closing and without connections

	// work counts the goroutines of this package and the requests in flight.
	// It is added to only under mu and while !forced, and waited for after.
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
		engines:   make(map[*engine]bool),
		drained:   make(chan struct{}),
		stopping:  make(chan struct{}),
	}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	s.proxy = s.newProxy()
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
	s.stopAcceptingLocked()
	for c := range s.conns {
		if c.handshaking {
			c.Conn.Close() // no request has begun on it
		}
	}
	if first {
		for e := range s.engines {
			s.retireLocked(e)
		}
		if len(s.conns) == 0 {
			close(s.drained)
		}
	}
	s.mu.Unlock()

	var err error
	select {
	case <-s.drained:
	case <-ctx.Done():
		err = ctx.Err()
	}

	s.mu.Lock()
	s.forced = true
	conns := make([]*conn, 0, len(s.conns))
	for c := range s.conns {
		conns = append(conns, c)
	}
	engines := make([]*engine, 0, len(s.engines))
	for e := range s.engines {
		engines = append(engines, e)
	}
	s.mu.Unlock()
	s.cancel()
	for _, c := range conns {
		c.Close()
	}
	for _, e := range engines {
		e.http.Close()
	}
	s.work.Wait()
	return err
}

// begin enters a piece of work that Shutdown waits for; the caller must call
// s.work.Done at its end. It fails once Shutdown has given up waiting.
func (s *Server) begin() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.forced {
		return false
	}
	s.work.Add(1)
	return true
}
