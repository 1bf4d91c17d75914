package l4

import (
	"context"
	"errors"
	"net"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/drawbridge-gateway/drawbridge/bridge/accesslog"
	"github.com/drawbridge-gateway/drawbridge/bridge/intake"
	"github.com/drawbridge-gateway/drawbridge/bridge/limit"
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
	splices   *splice.Source
	table     func() *Table
	log       hclog.Logger
	listener  string            // its name
	accessLog *accesslog.Logger // may be nil
	limiter   *limit.Limiter
	intake    *intake.Intake
	count     counters
}

// New returns a Server that is ready to Serve.
func New(o Options) *Server {
	log := o.Logger
	if log == nil {
		log = hclog.NewNullLogger()
	}
	log = log.With("listener", o.Listener)
	limiter := limit.New()
	return &Server{
		table:     o.Table,
		log:       log,
		splices:   splice.NewSource(o.Splices, 0),
		listener:  o.Listener,
		accessLog: o.AccessLog,
		limiter:   limiter,
		intake:    intake.New(intake.Options{Descriptors: o.Descriptors, Limiter: limiter, Logger: log}),
	}
}

// Serve accepts connections from ln and serves each. It
// owns ln, and closes it before it returns: ErrServerClosed after
// StopAccepting or Shutdown, else the error that accepting failed with. It
// does not wait for connections; Shutdown does.
func (s *Server) Serve(ln net.Listener) error {
	err := s.intake.Serve(ln, s.take)
	if err == intake.ErrClosed {
		return ErrServerClosed
	}
	return err
}

// take starts serving a connection, or closes it at once.
func (s *Server) take(raw net.Conn) {
	c := &conn{server: s, client: socket.New(raw, nil), start: time.Now()}
	if s.accessLog != nil {
		c.seen = new(seen)
	}
	t := s.table()
	if t == nil {
		c.client.Reset()
		return
	}
	rules := t.rules()
	if s.intake.Enter(&c.Conn, raw, &rules, c) {
		go c.serve(t) // which ends, and its stack with it, when the bytes flow
	}
}

// StopAccepting closes the listeners given to Serve and makes Serve return.
// Connections go on. It cannot be undone.
func (s *Server) StopAccepting() { s.intake.StopAccepting() }

// Shutdown stops accepting and waits until every connection has ended. If ctx
// ends before that, it cuts those that are left, the ones still being made
// included, and returns ctx's error once their goroutines have ended.
func (s *Server) Shutdown(ctx context.Context) error {
	defer s.splices.Close() // when nothing is left
	return s.intake.Shutdown(ctx)
}
