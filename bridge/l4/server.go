package l4

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/drawbridge-gateway/drawbridge/bridge/accesslog"
	"github.com/drawbridge-gateway/drawbridge/bridge/limit"
	"github.com/drawbridge-gateway/drawbridge/bridge/proxyproto"
	"github.com/drawbridge-gateway/drawbridge/bridge/socket"
	"github.com/drawbridge-gateway/drawbridge/bridge/splice"
)

// ErrServerClosed is what Serve returns after StopAccepting or Shutdown.
var ErrServerClosed = errors.New("l4: server closed")

// Options are what a Server needs.
type Options struct {
	Listener string // its name, for the logs

	// Table returns the table in force now; nil means that connections are
	// closed. It is called once per connection, so a connection sees exactly
	// one revision to its end.
	Table func() *Table

	// Splices carries the connections' bytes. It is its owner's to close, after
	// Shutdown. Nil: the Server has one of its own.
	Splices *splice.Engine

	// Descriptors counts clients' connections. It may be nil.
	Descriptors *socket.Descriptors

	// AccessLog is told of each connection when it has ended. It is its owner's to
	// close, after Shutdown. Nil: nobody is told.
	AccessLog *accesslog.Logger

	Logger hclog.Logger // nil discards
}

// A Server serves the connections of one listener. All methods may be called
// concurrently.
type Server struct {
	splices     *splice.Source
	table       func() *Table
	log         hclog.Logger
	listener    string              // its name
	accessLog   *accesslog.Logger   // may be nil
	descriptors *socket.Descriptors // may be nil
	limiter     *limit.Limiter
	count       counters

	// ctx ends when connections that are still being made are to be given up.
	ctx    context.Context
	cancel context.CancelFunc

	stopping chan struct{}  // closed by StopAccepting
	serving  sync.WaitGroup // one for each connection

	mu        sync.Mutex
	stopped   bool
	listeners map[net.Listener]struct{}
	conns     map[*conn]struct{}
	perClient map[netip.Addr]int
}

// New returns a Server that is ready to Serve.
func New(o Options) *Server {
	log := o.Logger
	if log == nil {
		log = hclog.NewNullLogger()
	}
	ctx, cancel := context.WithCancel(context.Background())
	return &Server{
		table:       o.Table,
		log:         log.With("listener", o.Listener),
		splices:     splice.NewSource(o.Splices, 0),
		listener:    o.Listener,
		accessLog:   o.AccessLog,
		descriptors: o.Descriptors,
		limiter:     limit.New(),
		ctx:         ctx,
		cancel:      cancel,
		stopping:    make(chan struct{}),
		listeners:   make(map[net.Listener]struct{}),
		conns:       make(map[*conn]struct{}),
		perClient:   make(map[netip.Addr]int),
	}
}

// StopAccepting closes the listeners given to Serve and makes Serve return.
// Connections go on. It cannot be undone.
func (s *Server) StopAccepting() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopped {
		return
	}
	s.stopped = true
	close(s.stopping)
	for ln := range s.listeners {
		ln.Close()
	}
}

// Shutdown stops accepting and waits until every connection has ended. If ctx
// ends before that, it cuts those that are left, the ones still being made
// included, and returns ctx's error once their goroutines have ended.
func (s *Server) Shutdown(ctx context.Context) error {
	s.StopAccepting()
	defer s.splices.Close() // when nothing is left
	defer s.cancel()
	drained := make(chan struct{})
	go func() {
		s.serving.Wait()
		close(drained)
	}()
	select {
	case <-drained:
		return nil
	case <-ctx.Done():
	}
	s.cancel()
	s.mu.Lock()
	left := len(s.conns)
	for c := range s.conns {
		c.cut()
	}
	s.mu.Unlock()
	<-drained
	if left == 0 {
		return nil
	}
	return ctx.Err()
}

// inTime reports whether t's rates allow one more connection of c's client.
func (s *Server) inTime(c *conn, t *Table) bool {
	if t.Rate.Count == 0 && t.RatePerClient.Count == 0 {
		return true
	}
	var p limit.Pass // of which nothing is to be given back
	if s.limiter.Enter(&p, c.addr, time.Now(), &limit.Limits{Rate: t.Rate, RatePerClient: t.RatePerClient}).Kind == limit.None {
		return true
	}
	s.count.rejected.Add(1)
	return false
}

// add takes a connection into the Server's care, or returns false: the Server
// is stopping or a limit of t is reached.
func (s *Server) add(c *conn, t *Table) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.stopped:
		return false
	case t.MaxConnections > 0 && len(s.conns) >= t.MaxConnections,
		t.MaxPerClient > 0 && c.addr.IsValid() && s.perClient[c.addr] >= t.MaxPerClient:
		s.count.rejected.Add(1)
		return false
	}
	s.count.accepted.Add(1)
	s.conns[c] = struct{}{}
	if c.addr.IsValid() {
		s.perClient[c.addr]++
	}
	s.count.open.Add(1)
	s.descriptors.AddClients(1)
	s.serving.Add(1)
	return true
}

// admit notes whose a connection turned out to be, or returns false: whoever it
// is has as many as t allows.
func (s *Server) admit(c *conn, who proxyproto.Announced, t *Table) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	before := c.who
	c.is(who)
	if !c.addr.IsValid() {
		return true
	}
	if t.MaxPerClient > 0 && s.perClient[c.addr] >= t.MaxPerClient {
		c.is(before)
		s.count.rejected.Add(1)
		return false
	}
	s.perClient[c.addr]++
	return true
}

func (s *Server) remove(c *conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.conns, c)
	if c.addr.IsValid() {
		if s.perClient[c.addr]--; s.perClient[c.addr] == 0 {
			delete(s.perClient, c.addr)
		}
	}
	s.count.open.Add(-1)
	s.descriptors.AddClients(-1)
	s.serving.Done()
}
