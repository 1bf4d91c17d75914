package l7

import (
	"context"
	"errors"
	"net"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/drawbridge-gateway/drawbridge/bridge/accesslog"
	"github.com/drawbridge-gateway/drawbridge/bridge/intake"
	"github.com/drawbridge-gateway/drawbridge/bridge/l7/exchange"
	"github.com/drawbridge-gateway/drawbridge/bridge/l7/policy"
	"github.com/drawbridge-gateway/drawbridge/bridge/l7/wire"
	"github.com/drawbridge-gateway/drawbridge/bridge/limit"
	"github.com/drawbridge-gateway/drawbridge/bridge/live"
	"github.com/drawbridge-gateway/drawbridge/bridge/socket"
	"github.com/drawbridge-gateway/drawbridge/bridge/splice"
	"github.com/drawbridge-gateway/drawbridge/bridge/validity"
)

// ErrServerClosed is returned by Serve after Shutdown or StopAccepting.
var ErrServerClosed = errors.New("l7: server closed")

// Options configure a Server.
type Options struct {
	Listener string // the listener's name, for the logs

	// Table returns the table in force now. It is called once per connection, for
	// the client's TLS and the limits, and once per request. If it returns nil,
	// the listener was removed: connections are closed, and requests get 503.
	Table func() *Table

	// Revision returns the live revision. It is called before Table for each connection,
	// so the connection's TLS settings belong to that revision or a later one. Nil:
	// revisions are unknown.
	Revision func() int64

	// Numbers numbers the connections. It may be nil.
	Numbers *live.Numbers

	// Splices carries upgraded connections. Nil: the Server creates its own
	// Engine.
	Splices *splice.Engine

	// Descriptors counts clients' connections. It may be nil.
	Descriptors *socket.Descriptors

	// AccessLog records each request when it ends. Its owner closes it, after
	// Shutdown. Nil: no access log.
	AccessLog *accesslog.Logger

	// Revalidation configures the Set that verifies clients again while their
	// connections are open. Its Logger is ignored: the Set logs to the Server's
	// Logger.
	Revalidation validity.Options

	Logger hclog.Logger // nil discards
}

// A Server serves one HTTP listener.
type Server struct {
	splices  *splice.Source // carries upgraded connections
	options  Options
	log      hclog.Logger
	shared   exchange.Shared // shared by the exchanges
	counters counters
	limiter  *limit.Limiter
	clock    clock

	// Reused by connections and requests.
	buffers  socket.Pool
	heads    headPool
	decoders wire.Decoders
	requests requestPool
	entropy  policy.Entropy

	intake *intake.Intake // tracks the goroutines of the connections

	ctx context.Context // the parent context of every request; ends when Shutdown stops waiting

	firstRequest time.Duration // the constant firstRequest, except in tests
}

// New returns a Server. It must be ended with Shutdown.
func New(o Options) *Server {
	log := o.Logger
	if log == nil {
		log = hclog.NewNullLogger()
	}
	log = log.Named("l7").With("listener", o.Listener)
	if o.Revision == nil {
		o.Revision = func() int64 { return 0 }
	}
	s := &Server{
		options: o,
		log:     log,

		firstRequest: firstRequest,

		splices: splice.NewSource(o.Splices, 1),
		limiter: limit.New(),
		intake: intake.New(intake.Options{
			Descriptors: o.Descriptors, Logger: log, Revalidation: o.Revalidation, Listener: o.Listener, Numbers: o.Numbers,
		}),
	}
	s.ctx = s.intake.Context()
	s.clock.began = time.Now()
	s.clock.tick.Store(int64(maxTick))
	s.shared = exchange.Shared{
		Context: s.ctx, Log: s.log, Clock: &s.clock, Splices: s.splices, Detailed: o.AccessLog != nil,
		FromClient: &s.counters.fromClient, ToClient: &s.counters.toClient,
	}
	return s
}

// Serve accepts connections on ln, which it owns, until Shutdown or
// StopAccepting; then it returns ErrServerClosed. Open connections stay open. Serve
// may be called for several listeners.
func (s *Server) Serve(ln net.Listener) error {
	err := s.intake.Serve(ln, s.accept)
	if err == intake.ErrClosed {
		return ErrServerClosed
	}
	return err
}

// Revalidate verifies the clients of open connections again, by the current
// table and in the background. The caller calls it after each change of the
// table.
func (s *Server) Revalidate() {
	if t := s.options.Table(); t != nil {
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

// StopAccepting closes every listener given to Serve, for good. Open connections
// stay open.
func (s *Server) StopAccepting() { s.intake.StopAccepting() }

// Shutdown stops accepting, lets requests in flight and upgraded connections
// finish, and returns when all are closed. It closes kept-alive connections when
// they are idle, and sends GOAWAY to HTTP/2 clients. When ctx ends, Shutdown cuts off
// the remaining connections and returns ctx's error. Either way every goroutine of
// the Server has ended when it returns.
func (s *Server) Shutdown(ctx context.Context) error {
	err := s.intake.Shutdown(ctx)
	s.stopClock()
	s.splices.Close()
	return err
}
