package l7

import (
	"crypto/tls"
	"errors"
	"net"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/drawbridge-gateway/drawbridge/bridge/accesslog"
	"github.com/drawbridge-gateway/drawbridge/bridge/intake"
	"github.com/drawbridge-gateway/drawbridge/bridge/l7/backs"
	"github.com/drawbridge-gateway/drawbridge/bridge/l7/http2"
	"github.com/drawbridge-gateway/drawbridge/bridge/l7/policy"
	"github.com/drawbridge-gateway/drawbridge/bridge/socket"
	"github.com/drawbridge-gateway/drawbridge/bridge/splice"
)

// A conn is a client's connection, below TLS. It counts its bytes. The Server
// tracks it until some goroutine has closed its Socket.
type conn struct {
	net.Conn
	intake         intake.Conn
	direct         *socket.Direct // writes to Conn
	server         *Server
	sock           *socket.Socket // on top of this conn
	upstreamClient backs.Client   // owns the connections to upstreams that belong to this client
	facts          policy.Connection

	secure      *tls.Conn   // nil: plaintext
	established atomic.Bool // the handshake is complete: the fields above are set
	latest      latest      // the latest request

	handshake time.Duration     // duration of the TLS handshake
	record    *accesslog.Record // the fields that the records of all requests share; nil: no access log

	state         atomic.Int32 // initially unused
	draining      atomic.Bool  // the connection accepts no further request; set by Drain
	closeEndsBody atomic.Bool  // only the close of the connection marks the end of the response

	// Times of the server's clock; 0: none.
	deadline          atomic.Int64 // when a waiting read times out
	upstreamWaitSince atomic.Int64 // when an exchange began to wait for its upstream
	parkAt            atomic.Int64 // when to park a connection whose goroutine waits for a request

	parked atomic.Pointer[splice.Parked] // the parked connection; nil until it is first parked

	mu   sync.Mutex
	gone func(cause error) // called when the client has left; may be nil
	cut  error             // why Cut was called, or nil
	http *http2.ServerConn // nil: HTTP/1

	logins logins // nil until the first login
}

// The states of a conn.
const (
	unused  int32 = iota // no request has begun yet
	resting              // no request is in progress: the connection may be closed
	busy
	finished // the connection was closed by Shutdown
)

// firstRequest is how long a draining connection may wait for its first request. The
// client has just connected, and its request may be on the way.
const firstRequest = 5 * time.Second

func (c *conn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.server.counters.fromClient.Add(uint64(n))
	return n, err
}

func (c *conn) Write(p []byte) (int, error) {
	n, err := c.direct.Write(p)
	c.server.counters.toClient.Add(uint64(n))
	if err == socket.ErrStuck {
		_ = c.SetLinger(0) // unsent bytes may be dropped
		c.Cut(errClientStuck)
	}
	return n, err
}

// TryWrite calls Direct.TryWrite.
func (c *conn) TryWrite(p []byte) (int, error) {
	n, err := c.direct.TryWrite(p)
	c.server.counters.toClient.Add(uint64(n))
	return n, err
}

// SyscallConn gives access to the socket, which not every connection has.
func (c *conn) SyscallConn() (syscall.RawConn, error) {
	if sc, ok := c.Conn.(syscall.Conn); ok {
		return sc.SyscallConn()
	}
	return nil, errors.ErrUnsupported
}

// SetLinger is like the method of *net.TCPConn.
func (c *conn) SetLinger(seconds int) error {
	if l, ok := c.Conn.(interface{ SetLinger(int) error }); ok {
		return l.SetLinger(seconds)
	}
	return errors.ErrUnsupported
}

// CloseWrite ends the stream toward the client; c can still be read.
func (c *conn) CloseWrite() error {
	if h, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return h.CloseWrite()
	}
	return errors.ErrUnsupported
}

// markIdle records that no request is in progress, so that Shutdown may close c. It
// reports false if the caller must close c now.
func (c *conn) markIdle() bool {
	c.state.Store(resting)
	return !c.closing() || !c.state.CompareAndSwap(resting, finished)
}

// closing reports whether the connection must end after the work in progress.
func (c *conn) closing() bool { return c.draining.Load() || c.server.intake.Closing() }

// wake records that a request begins. It reports false if c is closed.
func (c *conn) wake() bool {
	return c.state.CompareAndSwap(resting, busy) || c.state.CompareAndSwap(unused, busy)
}

// Drain implements intake's Owner. It closes c if no request is in progress, or if c was
// never used and its first request does not arrive soon. Otherwise it tells c's engine to
// accept no further request.
func (c *conn) Drain() {
	c.draining.Store(true)
	if c.state.Load() == unused { // await and carries see that c is draining
		time.AfterFunc(c.server.firstRequest, func() {
			if c.state.CompareAndSwap(unused, finished) {
				c.sock.Close()
			}
		})
		return
	}
	if c.state.CompareAndSwap(resting, finished) {
		c.sock.Close()
		return
	}
	if h := c.http2Conn(); h != nil {
		h.Shutdown()
	}
}

// Work implements intake's Owner.
func (c *conn) Work() (requests int, busy bool) {
	if h := c.http2Conn(); h != nil {
		n := h.Running()
		return n, n > 0
	}
	switch c.state.Load() {
	case unused, resting:
		return 0, false
	}
	return 1, true
}

func (c *conn) http2Conn() *http2.ServerConn {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.http
}

// carries records that h serves the connection. If it is draining, h accepts no streams.
func (c *conn) carries(h *http2.ServerConn) {
	c.mu.Lock()
	c.http = h
	c.mu.Unlock()
	if c.closing() {
		h.Shutdown()
	}
}

// notify registers gone, which is called when the client leaves, or at once if the
// client has already left. notify(nil) unregisters gone; when it returns, no call
// is running.
func (c *conn) notify(gone func(cause error)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case gone == nil:
		c.gone = nil
		c.upstreamWaitSince.Store(0)
	case c.cut != nil:
		gone(c.cut)
	default:
		c.gone = gone
		c.upstreamWaitSince.Store(c.server.clock.now.Load())
	}
}

// Cut implements intake's Owner. It closes c, even during a request.
func (c *conn) Cut(cause error) {
	c.mu.Lock()
	if c.cut == nil {
		c.cut = cause // set first: the exchange reads it when it notices the closed socket
	}
	c.mu.Unlock()
	if c.closeEndsBody.Load() {
		c.sock.Reset() // a plain close would make the response look complete
	} else {
		c.sock.Close() // even if an upgrade uses the socket
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.gone != nil {
		c.gone(cause)
		c.gone = nil
	}
}

// cutCause returns the cause of the first Cut; nil: none happened.
func (c *conn) cutCause() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.cut
}

var (
	errClientGone  = errors.New("the client disconnected")
	errClientStuck = errors.New("the client stopped reading")
)

// longAgo is a deadline that has passed.
var longAgo = time.Unix(1, 0)

// due reports whether check has work to do.
func (c *conn) due(now int64) bool {
	d, a, q := c.deadline.Load(), c.upstreamWaitSince.Load(), c.parkAt.Load()
	return d != 0 && now > d || q != 0 && now > q || a != 0 && now > a
}

// check enforces c's limits.
func (c *conn) check(now int64) {
	if d, q := c.deadline.Load(), c.parkAt.Load(); d != 0 && now > d || q != 0 && now > q {
		_ = c.Conn.SetReadDeadline(longAgo) // fails only on a closed connection, which has the same effect
		c.unpark()
	}
	c.cutIfGone(now, clientGone)
}

// cutIfGone cuts c if its exchange waits for an upstream and gone reports that the client
// has left.
func (c *conn) cutIfGone(now int64, gone func(*conn) bool) {
	a := c.upstreamWaitSince.Load()
	// The wait may end while gone looks. In an upgraded connection a FIN may be a
	// half-close, and a splice has closed the descriptor: the client has not left.
	if a != 0 && now > a && gone(c) && c.upstreamWaitSince.Load() == a {
		c.Cut(errClientGone)
	}
}

// accept takes over a connection, or closes it.
func (s *Server) accept(raw net.Conn) {
	revision, table := s.options.Revision(), s.options.Table()
	if table == nil {
		socket.New(raw, nil).Reset()
		return
	}
	c := &conn{Conn: raw, direct: socket.NewDirect(raw), server: s}
	c.sock, c.intake.Revision = socket.New(c, nil), revision
	rules := table.rules()
	if !s.intake.Enter(&c.intake, raw, &rules, c) {
		return
	}
	c.adopt(table.settings())
	s.startClock()
	c.sock.OnClose(func() {
		c.unpark() // the connection is draining
		s.intake.Leave(&c.intake)
		c.upstreamClient.End()
	})
	go s.start(c, table)
}

// adopt applies settings to c.
func (c *conn) adopt(st settings) {
	c.direct.LimitWait(st.idleTimeout)
	shortest := min(st.idleTimeout, st.headerReadTimeout)
	if st.maxAge > 0 {
		shortest = min(shortest, st.maxAge)
	}
	c.server.clock.KeepWithin(shortest)
}

// identify records the client of the connection.
func (c *conn) identify() {
	announced := c.intake.Announced
	c.upstreamClient.Announced = announced
	c.facts.Source, c.facts.Address = announced.Source, c.intake.Addr
	if c.facts.Address.IsValid() {
		c.facts.Client = c.facts.Address.String()
	}
	if to, ok := announced.Destination.(*net.TCPAddr); ok {
		c.facts.Port = strconv.Itoa(to.Port)
	}
}

// start reads the connection's PROXY protocol header, completes its TLS handshake,
// and then starts to serve it or closes it. Shutdown waits for it. The goroutine
// ends with the handshake, because a handshake needs many times the stack that
// waiting for a request needs.
func (s *Server) start(c *conn, t *Table) {
	served := false
	defer func() {
		if p := recover(); p != nil {
			s.intake.Panicked(&c.intake, p)
		}
		if !served {
			s.intake.Done()
		}
	}()
	rules := t.rules()
	if r := s.intake.Announce(&c.intake, &rules); r != nil {
		s.logRefusal(c, r)
		c.sock.Reset()
		return
	}
	c.identify()
	if t.TLS == nil {
		c.observe(nil)
		s.intake.Verified(&c.intake, c.sock, intake.Plaintext)
		served = true
		c.established.Store(true)
		s.serveConn(c, nil, t.settings())
		return
	}
	c.facts.TLS = true
	tc := t.TLS.Conn(c.sock)
	begun := time.Now()
	peer, r := s.intake.Handshake(&c.intake, t.TLS, tc, c.sock, begun.Add(rules.Timeout()))
	if r != nil {
		s.logRefusal(c, r)
		return
	}
	s.intake.Verified(&c.intake, c.sock, peer)
	c.facts.Session = policy.NewSession(tc.ConnectionState())
	c.handshake = time.Since(begun)
	c.observe(tc)
	served, c.secure = true, tc
	c.established.Store(true)
	go s.serveConn(c, tc, t.settings())
}

// logRefusal logs why a connection is not served.
func (s *Server) logRefusal(c *conn, r *intake.Refusal) {
	if r.Err != nil {
		s.log.Debug("connection closed", "client", c.intake.Name(), "ended", string(r.Ending), "reason", string(r.Reason), "error", policy.Printable(r.Err))
	}
}

// serveConn serves a connection. Shutdown waits until the connection ends. tc
// is nil for plaintext.
func (s *Server) serveConn(c *conn, tc *tls.Conn, st settings) {
	if tc != nil && tc.ConnectionState().NegotiatedProtocol == "h2" {
		if !c.wake() {
			s.intake.Done() // closed
			return
		}
		newFront2(s, c, tc, nil, st).serve()
		return
	}
	newFront1(s, c, tc, st).serve()
}

// park hands the idle connection to a poll loop, so that it holds neither a
// goroutine nor a stack. Another goroutine calls resume when bytes arrive or unpark
// is called. park reports whether the connection was parked. If it was, resume may
// be running already. Every call must pass the same resume.
func (c *conn) park(resume func()) bool {
	p := c.parked.Load()
	if p == nil {
		raw, err := c.SyscallConn()
		if err != nil {
			return false
		}
		engine, err := c.server.splices.Engine()
		if err != nil {
			return false
		}
		if p = engine.Parked(raw, func() { go resume() }); p == nil {
			return false
		}
		c.parked.Store(p)
	}
	return p.Park() == nil
}

// unpark wakes a parked connection.
func (c *conn) unpark() {
	if p := c.parked.Load(); p != nil {
		p.Wake()
	}
}
