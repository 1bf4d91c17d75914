package l7

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/netip"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/drawbridge-gateway/drawbridge/bridge/accesslog"
	"github.com/drawbridge-gateway/drawbridge/bridge/l7/policy"
	"github.com/drawbridge-gateway/drawbridge/bridge/proxyproto"
	"github.com/drawbridge-gateway/drawbridge/bridge/socket"
	"github.com/drawbridge-gateway/drawbridge/bridge/splice"
	"github.com/drawbridge-gateway/drawbridge/certs"
)

// A conn is a client's connection, below TLS. It counts its bytes, and it is
// the Server's until its Socket is closed, whoever carries it.
type conn struct {
	net.Conn
	direct *socket.Direct // to write to Conn
	server *Server
	sock   *socket.Socket       // on top of it, once it is tracked
	who    proxyproto.Announced // nobody before its PROXY protocol header was read
	facts  policy.Connection

	handshake time.Duration     // how long its TLS handshake took
	record    *accesslog.Record // what those of its requests have in common; nil: there is no access log

	state  atomic.Int32 // see rest
	untold atomic.Bool  // the end of the connection is the end of what is being sent

	// Times of the server's clock; 0: none.
	deadline atomic.Int64 // when a read that waits has waited too long
	asked    atomic.Int64 // when an exchange began to wait for its upstream
	calm     atomic.Int64 // when a goroutine has waited too long for a request to begin

	parked atomic.Pointer[splice.Parked] // to wait without one; nil: that was not needed yet

	mu   sync.Mutex
	gone func(cause error) // called when the client has gone; nil: nobody waits
	end  func()            // tells the client to bring no more requests; nil: nobody is to be told

	announcedAs ownPools // of connections announced as this one, or private to it
	logins      logins   // nil: none
}

// What a conn is about.
const (
	resting int32 = iota // no request has begun on it: it may be closed
	busy
	finished // closed by Shutdown
)

func (c *conn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.server.counters.fromClient.Add(uint64(n))
	return n, err
}

func (c *conn) Write(p []byte) (int, error) {
	n, err := c.direct.Write(p)
	c.server.counters.toClient.Add(uint64(n))
	if err == socket.ErrStuck {
		_ = c.SetLinger(0) // what is not sent is not worth keeping
		c.cut(errClientStuck)
	}
	return n, err
}

// TryWrite is Direct's.
func (c *conn) TryWrite(p []byte) (int, error) {
	n, err := c.direct.TryWrite(p)
	c.server.counters.toClient.Add(uint64(n))
	return n, err
}

// SyscallConn gives access to the socket, of which not every connection has
// one.
func (c *conn) SyscallConn() (syscall.RawConn, error) {
	if sc, ok := c.Conn.(syscall.Conn); ok {
		return sc.SyscallConn()
	}
	return nil, errors.ErrUnsupported
}

// SetLinger is *net.TCPConn's.
func (c *conn) SetLinger(seconds int) error {
	if l, ok := c.Conn.(interface{ SetLinger(int) error }); ok {
		return l.SetLinger(seconds)
	}
	return errors.ErrUnsupported
}

// CloseWrite ends the stream towards the client; reading goes on.
func (c *conn) CloseWrite() error {
	if h, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return h.CloseWrite()
	}
	return errors.ErrUnsupported
}

// rest says that no request is under way, so that Shutdown may close c. It
// reports false if c is to be closed now.
func (c *conn) rest() bool {
	c.state.Store(resting)
	return !c.server.stops.Load() || !c.state.CompareAndSwap(resting, finished)
}

// wake says that a request begins. It reports false if c is closed.
func (c *conn) wake() bool { return c.state.CompareAndSwap(resting, busy) }

// finish closes c if no request is under way, and else lets its engine know
// that none may follow.
func (c *conn) finish() {
	if c.state.CompareAndSwap(resting, finished) {
		c.sock.Close()
		return
	}
	c.mu.Lock()
	end := c.end
	c.mu.Unlock()
	if end != nil {
		end()
	}
}

// onEnd has end called when the client is to bring no more requests: now, if
// Shutdown was called already.
func (c *conn) onEnd(end func()) {
	c.mu.Lock()
	c.end = end
	c.mu.Unlock()
	if c.server.stops.Load() {
		end()
	}
}

// notify makes gone what is called when the client goes; nil: nothing, and when
// it returns nothing is being called.
func (c *conn) notify(gone func(cause error)) {
	c.mu.Lock()
	c.gone = gone
	c.mu.Unlock()
	if gone == nil {
		c.asked.Store(0)
	} else {
		c.asked.Store(c.server.clock.now.Load())
	}
}

// cut closes c, whatever goes on.
func (c *conn) cut(cause error) {
	if c.untold.Load() {
		c.sock.Reset() // a mere end would make what was sent look whole
	} else {
		c.sock.Close() // whoever carries it by now
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.gone != nil {
		c.gone(cause)
		c.gone = nil
	}
}

var (
	errClientGone  = errors.New("the client has gone")
	errClientStuck = errors.New("the client takes nothing of what it is sent")
)

// longAgo is a deadline that has passed.
var longAgo = time.Unix(1, 0)

// due reports whether check has something to do.
func (c *conn) due(now int64) bool {
	d, a, q := c.deadline.Load(), c.asked.Load(), c.calm.Load()
	return d != 0 && now > d || q != 0 && now > q || a != 0 && now > a
}

// check enforces c's limits.
func (c *conn) check(now int64) {
	if d, q := c.deadline.Load(), c.calm.Load(); d != 0 && now > d || q != 0 && now > q {
		_ = c.Conn.SetReadDeadline(longAgo) // fails only if it is closed, which is as good
		c.unpark()
	}
	if a := c.asked.Load(); a != 0 && now > a && hungUp(c) {
		c.cut(errClientGone)
	}
}

// accept takes a connection over, or closes it.
func (s *Server) accept(raw net.Conn) {
	table := s.options.Table()
	if table == nil {
		raw.Close()
		return
	}
	c := &conn{Conn: raw, direct: socket.NewDirect(raw), server: s}
	if table.ProxyProtocol == nil {
		c.is(proxyproto.Announced{Source: raw.RemoteAddr(), Destination: raw.LocalAddr()})
		if !s.admits(c, table) {
			raw.Close()
			return
		}
	}
	c.sock = socket.New(c, nil)
	c.adopt(table.settings())
	if !s.track(c, table) {
		raw.Close()
		return
	}
	c.sock.OnClose(func() {
		c.unpark() // it is to come to its end
		s.forget(c)
		c.announcedAs.end()
	})
	go s.start(c, table)
}

// adopt makes settings those of c.
func (c *conn) adopt(st settings) {
	c.direct.LimitWait(st.idleTimeout)
	shortest := min(st.idleTimeout, st.headerReadTimeout)
	if st.maxAge > 0 {
		shortest = min(shortest, st.maxAge)
	}
	c.server.clock.keep(shortest)
}

// track makes c one of the Server's connections, and begins the work of
// starting it, unless a limit is reached or the Server is closing.
func (s *Server) track(c *conn, t *Table) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closing {
		return false
	}
	if t.MaxConnections > 0 && len(s.conns) >= t.MaxConnections ||
		t.MaxPerClient > 0 && c.facts.Client != "" && s.perClient[c.facts.Client] >= t.MaxPerClient {
		s.counters.rejected.Add(1)
		s.log.Debug("connection refused: limit reached", "client", c.facts.Client)
		return false
	}
	s.conns[c] = true
	if c.facts.Client != "" {
		s.perClient[c.facts.Client]++
	}
	s.startClockLocked()
	s.counters.accepted.Add(1)
	s.counters.open.Add(1)
	s.options.Descriptors.AddClients(1)
	s.work.Add(1)
	return true
}

// is notes whose the connection is.
func (c *conn) is(who proxyproto.Announced) {
	c.who, c.facts.Source, c.facts.Address = who, who.Source, addressOf(who.Source)
	if c.facts.Address.IsValid() {
		c.facts.Client = c.facts.Address.String()
	}
	if to, ok := who.Destination.(*net.TCPAddr); ok {
		c.facts.Port = strconv.Itoa(to.Port)
	}
}

// admits reports whether t serves whose connection it is. Of those that a trusted
// proxy brings each request is judged by itself.
func (s *Server) admits(c *conn, t *Table) bool {
	if t.Access.Serves(c.facts.Address) || t.TrustedProxies.Has(c.who.Source) {
		return true
	}
	s.counters.denied.Add(1)
	s.log.Debug("connection refused: the client has no access", "client", c.facts.Client)
	return false
}

// announced reads for whom a connection is, and reports whether it may go on.
func (s *Server) announced(c *conn, t *Table) bool {
	who, err := t.ProxyProtocol.Accept(c.Conn, t.handshakeTimeout())
	if err != nil {
		reason := s.counters.unannounced.Add(err)
		s.log.Debug("connection refused", "client", c.Conn.RemoteAddr().String(), "reason", string(reason), "error", policy.Printable(err))
		return false
	}
	if !s.limited(c, t, who) {
		return false
	}
	return s.admits(c, t)
}

// limited counts a connection as who's, and reports whether it may go on.
func (s *Server) limited(c *conn, t *Table, who proxyproto.Announced) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.conns[c] {
		return false // closed meanwhile
	}
	if addr := addressOf(who.Source); t.MaxPerClient > 0 && addr.IsValid() && s.perClient[addr.String()] >= t.MaxPerClient {
		s.counters.rejected.Add(1)
		s.log.Debug("connection refused: limit reached", "client", addr.String())
		return false
	}
	if c.is(who); c.facts.Client != "" {
		s.perClient[c.facts.Client]++
	}
	return true
}

func (s *Server) forget(c *conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.conns, c)
	if c.facts.Client != "" {
		if s.perClient[c.facts.Client]--; s.perClient[c.facts.Client] == 0 {
			delete(s.perClient, c.facts.Client)
		}
	}
	s.counters.open.Add(-1)
	s.options.Descriptors.AddClients(-1)
	if s.closing && len(s.conns) == 0 {
		close(s.drained)
	}
}

// start finishes the client's TLS handshake and has the connection served, or
// closes it: one of the Server's work. The handshake's goroutine ends with it: the
// stack that it needs is many times what waiting for a request takes.
func (s *Server) start(c *conn, t *Table) {
	if t.ProxyProtocol != nil && !s.announced(c, t) {
		c.sock.Close()
		s.work.Done()
		return
	}
	if t.TLS == nil {
		s.serveConn(c, nil, t.settings())
		return
	}
	c.facts.TLS = true
	tc := t.TLS.Conn(c.sock)
	begun := time.Now()
	if err := s.handshake(tc, t); err != nil {
		c.sock.Close()
		reason := certs.ClassifyAccept(err)
		s.counters.handshakeFailed(reason)
		s.log.Debug("client handshake failed", "client", c.facts.Client, "reason", string(reason), "error", policy.Printable(err))
		s.work.Done()
		return
	}
	c.facts.Session = policy.NewSession(tc.ConnectionState())
	c.handshake = time.Since(begun)
	go s.serveConn(c, tc, t.settings())
}

// serveConn serves a connection, which is work until it ends; tc is nil for
// plaintext.
func (s *Server) serveConn(c *conn, tc *tls.Conn, st settings) {
	if s.options.AccessLog != nil {
		c.observe(tc)
	}
	if tc != nil && tc.ConnectionState().NegotiatedProtocol == "h2" {
		if !c.wake() {
			s.work.Done() // closed
			return
		}
		newFront2(s, c, tc, nil, st).serve()
		return
	}
	newFront1(s, c, tc, st).serve()
}

func (s *Server) handshake(tc *tls.Conn, t *Table) error {
	ctx, cancel := context.WithTimeout(s.ctx, t.handshakeTimeout())
	defer cancel()
	if err := tc.HandshakeContext(ctx); err != nil {
		return err
	}
	if tc.ConnectionState().DidResume {
		s.counters.resumed.Add(1)
	} else {
		s.counters.full.Add(1)
	}
	return nil
}

// park leaves the connection, on which nothing goes on, to a loop, so that it holds
// neither a goroutine nor its stack: resume is called by another when something
// comes, or unpark is called. It reports whether that can be done; if so resume may
// be running already. It is the same each time.
func (c *conn) park(resume func()) bool {
	p := c.parked.Load()
	if p == nil {
		engine, err := c.server.splices.Engine()
		if err != nil {
			return false
		}
		raw, err := c.SyscallConn()
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

// unpark has a connection served again that is parked.
func (c *conn) unpark() {
	if p := c.parked.Load(); p != nil {
		p.Wake()
	}
}

// addressOf returns the IP address of a peer; the zero Addr if it has none.
func addressOf(addr net.Addr) netip.Addr {
	tcp, ok := addr.(*net.TCPAddr)
	if !ok {
		return netip.Addr{}
	}
	ip, _ := netip.AddrFromSlice(tcp.IP)
	return ip.Unmap()
}
