package l7

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/drawbridge-gateway/drawbridge/certs"
)

// A conn is a client's connection, below TLS. It counts its bytes, and it is
// the Server's until it is closed, whoever reads from it.
type conn struct {
	net.Conn
	server      *Server
	client      string // IP address; "" where there is none
	handshaking bool   // guarded by server.mu
	closed      sync.Once

	// stall is how long the client may take nothing of what it is sent.
	stall    time.Duration
	deadline atomic.Bool // whoever writes has set one of their own
}

func (c *conn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.server.counters.fromClient.Add(uint64(n))
	return n, err
}

func (c *conn) Write(p []byte) (int, error) {
	if !c.deadline.Load() {
		_ = c.Conn.SetWriteDeadline(time.Now().Add(c.stall)) // fails only on a closed connection, and then so does Write
	}
	n, err := c.Conn.Write(p)
	c.server.counters.toClient.Add(uint64(n))
	return n, err
}

func (c *conn) SetDeadline(t time.Time) error {
	c.deadline.Store(!t.IsZero())
	return c.Conn.SetDeadline(t)
}

func (c *conn) SetWriteDeadline(t time.Time) error {
	c.deadline.Store(!t.IsZero())
	return c.Conn.SetWriteDeadline(t)
}

// Close closes the connection, and the Server forgets it.
func (c *conn) Close() error {
	err := c.Conn.Close()
	c.closed.Do(func() { c.server.forget(c) })
	return err
}

// CloseWrite ends the stream towards the client; reading goes on.
func (c *conn) CloseWrite() error {
	if h, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return h.CloseWrite()
	}
	return errors.ErrUnsupported
}

// accept takes a connection over, or closes it.
func (s *Server) accept(raw net.Conn) {
	table := s.options.Table()
	if table == nil {
		raw.Close()
		return
	}
	c := &conn{Conn: raw, server: s, client: clientAddress(raw.RemoteAddr()), handshaking: table.TLS != nil, stall: table.settings().idleTimeout}
	if !s.track(c, table) {
		raw.Close()
		return
	}
	go func() {
		defer s.work.Done()
		s.start(c, table)
	}()
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
		t.MaxPerClient > 0 && c.client != "" && s.perClient[c.client] >= t.MaxPerClient {
		s.counters.rejected.Add(1)
		s.log.Debug("connection refused: limit reached", "client", c.client)
		return false
	}
	s.conns[c] = true
	if c.client != "" {
		s.perClient[c.client]++
	}
	s.counters.accepted.Add(1)
	s.counters.open.Add(1)
	s.options.Descriptors.AddClients(1)
	s.work.Add(1)
	return true
}

func (s *Server) forget(c *conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.conns, c)
	if c.client != "" {
		if s.perClient[c.client]--; s.perClient[c.client] == 0 {
			delete(s.perClient, c.client)
		}
	}
	s.counters.open.Add(-1)
	s.options.Descriptors.AddClients(-1)
	if s.closing && len(s.conns) == 0 {
		close(s.drained)
	}
}

// start finishes the client's TLS handshake and hands the connection to an
// engine, or closes it.
func (s *Server) start(c *conn, t *Table) {
	var nc net.Conn = c
	if t.TLS != nil {
		tc := t.TLS.Conn(c)
		if err := s.handshake(tc, t); err != nil {
			c.Close()
			reason := certs.ClassifyAccept(err)
			s.counters.handshakeFailed(reason)
			s.log.Debug("client handshake failed", "client", c.client, "reason", string(reason), "error", printable(err))
			return
		}
		s.mu.Lock()
		c.handshaking = false
		s.mu.Unlock()
		nc = tc
	}
	for {
		e := s.engineFor(t.settings())
		if e == nil {
			c.Close()
			return
		}
		if e.take(s, nc) {
			return
		}
		// It was retired this moment; the next one takes the connection.
	}
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

// clientAddress returns the IP address of a peer, "" if it has none.
func clientAddress(addr net.Addr) string {
	tcp, ok := addr.(*net.TCPAddr)
	if !ok {
		return ""
	}
	ip, ok := netip.AddrFromSlice(tcp.IP)
	if !ok {
		return ""
	}
	return ip.Unmap().String()
}
