// Package socket is one connected socket as the bridge needs it: it can be
// reset, it tells once when it is closed, it can be read without holding a
// buffer while the peer is silent (Stream), and it can send many writes with
// one system call (Gather).
//
// Whoever made a Socket owns it and closes it. What was layered on it, such as
// a *tls.Conn, is abandoned with it.
package socket

import (
	"crypto/tls"
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// A Socket is a connected TCP or unix-domain socket. It starts as an ordinary
// net.Conn; Stream makes it one that is read in two steps, Gather one that is
// written in two.
//
// One goroutine may read while another writes, and Close and Reset may be
// called at any time. A *tls.Conn on top serves two goroutines likewise.
type Socket struct {
	net.Conn

	mu      sync.Mutex
	closing bool // Close or Reset was called: it is too late for HandOver
	closed  bool
	onClose []func() // nil once closed

	unheard atomic.Bool // HearFirst was called and nothing was read since

	ahead  []byte // was read, and is to be read again; see Unread
	in     stream
	out    gather
	ends   ending
	direct *Direct // nil until something is written

	// carrier moves the bytes after HandOver; nil before. Set under mu.
	carrier Carrier
}

// New returns a Socket that owns conn. onClose, if not nil, is as for OnClose.
func New(conn net.Conn, onClose func()) *Socket {
	s := &Socket{Conn: conn}
	if onClose != nil {
		s.onClose = append(s.onClose, onClose)
	}
	return s
}

// OnClose has f called once, when the Socket is closed or reset: now, if it is
// already.
func (s *Socket) OnClose(f func()) {
	s.mu.Lock()
	closed := s.closed
	if !closed {
		s.onClose = append(s.onClose, f)
	}
	s.mu.Unlock()
	if closed {
		f()
	}
}

// Of returns the Socket that is conn or lies beneath it; nil if there is none.
func Of(conn net.Conn) *Socket {
	for {
		switch c := conn.(type) {
		case *Socket:
			return c
		case *tls.Conn:
			conn = c.NetConn()
		case interface{ NetConn() net.Conn }:
			conn = c.NetConn()
		default:
			return nil
		}
	}
}

// Close closes the connection. Bytes already sent are still delivered; of those
// that Gather holds back, what can be sent without waiting.
func (s *Socket) Close() error {
	if c := s.beginClose(); c != nil {
		c.Close(false)
		return nil
	}
	s.sendLast()
	return s.close()
}

// beginClose returns the Carrier whose it is to close s, nil if s closes itself.
func (s *Socket) beginClose() Carrier {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closing = true
	return s.carrier
}

func (s *Socket) close() error {
	err := s.Conn.Close()
	s.tellClosed()
	return err
}

// Reset closes the connection so that the peer cannot take its stream for a
// complete one: with a TCP reset, dropping what was not delivered yet. A
// unix-domain socket has no reset, so there the peer sees a plain end.
func (s *Socket) Reset() {
	if c := s.beginClose(); c != nil {
		c.Close(true)
		return
	}
	if c, ok := s.Conn.(interface{ SetLinger(int) error }); ok {
		_ = c.SetLinger(0) // fails only on a connection that is gone already
	}
	_ = s.close()
}

func (s *Socket) tellClosed() {
	s.mu.Lock()
	told := s.onClose
	s.closed, s.onClose = true, nil
	s.mu.Unlock()
	for _, f := range told {
		f()
	}
}

// Unread has p read again, before anything else, by whoever reads next or takes
// the connection over. p is the Socket's from then on. Nobody else may be reading,
// and Stream must not have been called.
func (s *Socket) Unread(p []byte) { s.ahead = p }

// CloseWrite ends the stream towards the peer; reading goes on.
func (s *Socket) CloseWrite() error {
	if err := s.Flush(); err != nil {
		return err
	}
	if c, ok := s.Conn.(interface{ CloseWrite() error }); ok {
		return c.CloseWrite()
	}
	return errors.ErrUnsupported
}

// HearFirst makes a Write that fails because the peer has gone succeed, until
// something was read. A peer that refuses what it has heard says so, closes, and
// answers what comes then with a reset. Whoever writes meanwhile would be told of
// the reset and might close s, and what the peer said would never be read. This
// way it is reading that tells of the end, after what the peer said.
func (s *Socket) HearFirst() { s.unheard.Store(true) }

// SetWriteDeadline is net.Conn's until HandOver, and nothing from then on.
func (s *Socket) SetWriteDeadline(t time.Time) error {
	if s.carrier != nil {
		return nil
	}
	return s.Conn.SetWriteDeadline(t)
}
