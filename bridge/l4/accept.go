package l4

import (
	"errors"
	"net"
	"net/netip"
	"syscall"
	"time"

	"github.com/drawbridge-gateway/drawbridge/bridge/socket"
)

// Serve accepts connections from ln and serves each on its own goroutine. It
// owns ln, and closes it before it returns: ErrServerClosed after
// StopAccepting or Shutdown, else the error that accepting failed with. It
// does not wait for connections; Shutdown does.
func (s *Server) Serve(ln net.Listener) error {
	defer ln.Close()
	if !s.addListener(ln) {
		return ErrServerClosed
	}
	defer s.removeListener(ln)

	var pause backoff
	for {
		raw, err := ln.Accept()
		if err != nil {
			select {
			case <-s.stopping:
				return ErrServerClosed
			default:
			}
			if !passing(err) {
				return err
			}
			wait, warn := pause.next(time.Now())
			if warn {
				s.log.Warn("cannot accept connections for now", "error", err)
			}
			select {
			case <-time.After(wait):
			case <-s.stopping:
				return ErrServerClosed
			}
			continue
		}
		pause.reset()
		s.take(raw)
	}
}

// take starts serving a connection, or closes it at once.
func (s *Server) take(raw net.Conn) {
	s.count.accepted.Add(1)
	c := &conn{server: s, client: socket.New(raw, nil), addr: clientAddr(raw)}
	t := s.table()
	if t == nil || !s.add(c, t) {
		// A reset leaves no TIME_WAIT behind, of which a flood would make many.
		c.client.Reset()
		return
	}
	go func() {
		defer s.remove(c)
		c.serve(t)
	}()
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

// clientAddr returns the client's IP address; invalid for a unix-domain socket,
// whose clients are all this machine.
func clientAddr(conn net.Conn) netip.Addr {
	if a, ok := conn.RemoteAddr().(*net.TCPAddr); ok {
		return a.AddrPort().Addr().Unmap()
	}
	return netip.Addr{}
}

// passing reports whether accepting may work again later: the process or the
// machine is out of descriptors or memory, or the client was gone already.
func passing(err error) bool {
	for _, e := range []error{syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM, syscall.ECONNABORTED} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// A backoff says how long to wait after an accept that failed: twice as long
// each time, from 5ms to 1s.
type backoff struct {
	wait   time.Duration
	warned time.Time
}

// next returns the time to wait, and whether it is time to warn (at most every
// ten seconds).
func (b *backoff) next(now time.Time) (wait time.Duration, warn bool) {
	b.wait = min(max(2*b.wait, 5*time.Millisecond), time.Second)
	if warn = b.warned.IsZero() || now.Sub(b.warned) >= 10*time.Second; warn {
		b.warned = now
	}
	return b.wait, warn
}

func (b *backoff) reset() { b.wait = 0 }
