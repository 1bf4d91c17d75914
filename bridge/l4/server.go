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
	"github.com/drawbridge-gateway/drawbridge/bridge/live"
	"github.com/drawbridge-gateway/drawbridge/bridge/socket"
	"github.com/drawbridge-gateway/drawbridge/bridge/splice"
	"github.com/drawbridge-gateway/drawbridge/bridge/starttls"
	"github.com/drawbridge-gateway/drawbridge/bridge/validity"
)

// ErrServerClosed is returned by Serve after StopAccepting or Shutdown.
var ErrServerClosed = errors.New("l4: server closed")

// Options configure a Server.
type Options struct {
	Listener string // the listener's name, for logs

	// Table returns the current table; nil closes connections. The Server calls it once
	// per connection, so a connection sees exactly one revision to its end.
	Table func() *Table

	// Revision returns the live revision. The Server calls it before Table, so a
	// connection's table belongs to that revision or a later one. Nil: revisions are
	// unknown.
	Revision func() int64

	// Numbers numbers the connections. It may be nil.
	Numbers *live.Numbers

	// Splices carries the connections' bytes. Its owner closes it after Shutdown. Nil:
	// the Server creates its own.
	Splices *splice.Engine

	// Descriptors counts client connections. It may be nil.
	Descriptors *socket.Descriptors

	// AccessLog receives a record of each connection that has ended. Its owner closes
	// it after Shutdown. Nil disables the access log.
	AccessLog *accesslog.Logger

	// Revalidation configures the Set that verifies clients again while their
	// connections are open. Its Logger is ignored: the Set logs to the Server's
	// Logger.
	Revalidation validity.Options

	Logger hclog.Logger // nil discards
}

// A Server serves the connections of one listener. All methods may be called
// concurrently.
type Server struct {
	splices   *splice.Source
	table     func() *Table
	revision  func() int64
	log       hclog.Logger
	listener  string            // for logs
	accessLog *accesslog.Logger // may be nil
	limiter   *limit.Limiter
	intake    *intake.Intake
	count     counters
	passwords starttls.Key // the key with which MySQL clients encrypt passwords
}

// New returns a Server. The caller ends it with Shutdown.
func New(o Options) *Server {
	log := o.Logger
	if log == nil {
		log = hclog.NewNullLogger()
	}
	log = log.With("listener", o.Listener)
	limiter := limit.New()
	if o.Revision == nil {
		o.Revision = func() int64 { return 0 }
	}
	return &Server{
		table:     o.Table,
		revision:  o.Revision,
		log:       log,
		splices:   splice.NewSource(o.Splices, 0),
		listener:  o.Listener,
		accessLog: o.AccessLog,
		limiter:   limiter,
		intake: intake.New(intake.Options{
			Descriptors: o.Descriptors, Limiter: limiter, Logger: log, Revalidation: o.Revalidation,
			Listener: o.Listener, Numbers: o.Numbers,
		}),
	}
}

// Serve accepts connections from ln and serves each. It owns ln and closes it before it
// returns. It returns ErrServerClosed after StopAccepting or Shutdown, and otherwise
// the error of accepting. It does not wait for connections; Shutdown does.
func (s *Server) Serve(ln net.Listener) error {
	err := s.intake.Serve(ln, s.take)
	if err == intake.ErrClosed {
		return ErrServerClosed
	}
	return err
}

// take starts to serve a connection, or closes it at once.
func (s *Server) take(raw net.Conn) {
	c := &conn{server: s, client: socket.New(raw, nil), start: time.Now()}
	if s.accessLog != nil {
		c.details = new(logDetails)
	}
	c.Revision = s.revision()
	t := s.table()
	if t == nil {
		c.client.Reset()
		return
	}
	rules := t.rules()
	if s.intake.Enter(&c.Conn, raw, &rules, c) {
		go c.serve(t) // this goroutine ends, and frees its stack, when the splice starts
	}
}

// Revalidate verifies the clients of open connections again, by the current
// table and in the background. The caller calls it after each change of the
// table.
func (s *Server) Revalidate() {
	if t := s.table(); t != nil {
		s.intake.Peers().Require(t.Validity)
	}
}

// Peers returns the Set that verifies the clients of open connections again.
func (s *Server) Peers() *validity.Set { return s.intake.Peers() }

// Limiter returns the Limiter of the listener's rates.
func (s *Server) Limiter() *limit.Limiter { return s.limiter }

// Tally counts the connections that would end if a policy took effect, or on Shutdown
// if the policy is nil.
func (s *Server) Tally(p *validity.Policy) validity.Tally { return s.intake.Tally(p) }

// StopAccepting closes the listeners given to Serve and makes Serve return. Connections
// continue. It cannot be undone.
func (s *Server) StopAccepting() { s.intake.StopAccepting() }

// Shutdown stops accepting and waits until every connection has ended. If ctx ends
// first, Shutdown cuts the remaining connections, including those still being set up,
// and returns ctx's error once their goroutines have ended.
func (s *Server) Shutdown(ctx context.Context) error {
	defer s.splices.Close() // after the last splice
	return s.intake.Shutdown(ctx)
}
