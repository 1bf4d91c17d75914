package l4

import (
	"net"
	"net/netip"
	"time"

	"github.com/drawbridge-gateway/drawbridge/bridge/proxyproto"
	"github.com/drawbridge-gateway/drawbridge/bridge/socket"
)

// Serve accepts connections from ln and serves each. It
// owns ln, and closes it before it returns: ErrServerClosed after
// StopAccepting or Shutdown, else the error that accepting failed with. It
// does not wait for connections; Shutdown does.
func (s *Server) Serve(ln net.Listener) error {
	defer ln.Close()
	if !s.addListener(ln) {
		return ErrServerClosed
	}
	defer s.removeListener(ln)

	err := socket.Accept(ln, s.stopping, s.log, s.take)
	select {
	case <-s.stopping:
		return ErrServerClosed
	default:
		return err
	}
}

// take starts serving a connection, or closes it at once.
func (s *Server) take(raw net.Conn) {
	c := &conn{server: s, client: socket.New(raw, nil), start: time.Now()}
	if s.accessLog != nil {
		c.seen = new(seen)
	}
	t := s.table()
	if t != nil && t.ProxyProtocol == nil {
		c.is(proxyproto.Announced{Source: raw.RemoteAddr(), Destination: raw.LocalAddr()})
	}
	if t == nil || !s.admits(c, t) || t.ProxyProtocol == nil && !s.inTime(c, t) || !s.add(c, t) {
		// A reset leaves no TIME_WAIT behind, of which a flood would make many.
		c.client.Reset()
		return
	}
	go c.serve(t) // which ends, and its stack with it, when the bytes flow
}

// admits reports whether t serves whose connection it is; nobody's, before its
// PROXY protocol header was read, it does.
func (s *Server) admits(c *conn, t *Table) bool {
	if t.Access.Serves(c.addr) {
		return true
	}
	s.count.denied.Add(1)
	s.log.Debug("connection refused: the client has no access", "client", c.name())
	return false
}

func (s *Server) addListener(ln net.Listener) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopped {
		return false
	}
	s.listeners[ln] = struct{}{}
	return true
}

func (s *Server) removeListener(ln net.Listener) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.listeners, ln)
}

// is notes whose the connection is.
func (c *conn) is(who proxyproto.Announced) {
	c.who, c.addr = who, netip.Addr{}
	if a, ok := who.Source.(*net.TCPAddr); ok {
		c.addr = a.AddrPort().Addr().Unmap()
	}
}
