// Package socket wraps one connected TCP or unix-domain socket with the operations
// that the bridge needs beyond net.Conn: reset, close callbacks, reads that hold no
// buffer while the peer is silent (Stream), and many writes in one system call
// (Gather).
//
// The code that creates a Socket owns it and closes it. A *tls.Conn on top of a
// Socket is abandoned with it.
package socket

import (
	"crypto/tls"
	"errors"
	"net"
	"sync"
	"time"
)

// A Socket is a connected TCP or unix-domain socket. It starts as an ordinary net.Conn.
// After Stream, reads have two steps (Fill, Read), and after Gather, writes have two
// steps (Write, Flush).
//
// One goroutine may read while another writes, and any goroutine may call Close and
// Reset at any time. The same holds for a *tls.Conn on top.
type Socket struct {
	net.Conn

	mu      sync.Mutex
	closing bool // Close or Reset was called: HandOver fails
	closed  bool
	onClose []func() // nil after close

	unread  []byte       // bytes to read again; see Unread
	record  recording    // the first bytes read; see Record
	records *RecordMeter // nil until MeterRecords
	in      stream
	out     gather
	sender  sender

	// carrier moves the bytes after HandOver; nil before. Set under mu.
	carrier Carrier

	guard Guard // see SetGuard
}

// A Guard decides whether a connection may carry further work.
type Guard interface {
	// Invalid returns why the connection must carry no further work, or nil.
	Invalid() error
}

// SetGuard sets the connection's Guard. It is called before any other goroutine
// uses the Socket.
func (s *Socket) SetGuard(g Guard) { s.guard = g }

// Invalid returns why the connection must carry no further work, or nil. Without
// a Guard it is always nil.
func (s *Socket) Invalid() error {
	if s == nil || s.guard == nil {
		return nil
	}
	return s.guard.Invalid()
}

// New returns a Socket that owns conn. A non-nil onClose is registered with OnClose.
func New(conn net.Conn, onClose func()) *Socket {
	s := &Socket{Conn: conn}
	s.sender.conn, s.out.to = conn, &s.sender
	if onClose != nil {
		s.onClose = append(s.onClose, onClose)
	}
	return s
}

// OnClose registers f to be called once, when the Socket is closed or reset. If the
// Socket is already closed, OnClose calls f at once.
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

// Of returns conn if it is a Socket, or the Socket beneath it, or nil.
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

// Close closes the connection. Bytes already sent are still delivered. Close sends as
// many of Gather's bytes as it can without waiting.
func (s *Socket) Close() error {
	if c := s.beginClose(); c != nil {
		c.Close(false)
		return nil
	}
	s.out.sendLast()
	return s.close()
}

// beginClose marks s as closing. It returns the Carrier that must close s, or nil if s
// closes itself.
func (s *Socket) beginClose() Carrier {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closing = true
	return s.carrier
}

func (s *Socket) close() error {
	err := s.Conn.Close()
	s.notifyClosed()
	return err
}

// Reset closes the connection with a TCP reset and discards undelivered bytes, so that
// the stream does not look complete to the peer. A unix-domain socket has no reset; its
// peer sees a plain end.
func (s *Socket) Reset() {
	if c := s.beginClose(); c != nil {
		c.Close(true)
		return
	}
	if c, ok := s.Conn.(interface{ SetLinger(int) error }); ok {
		_ = c.SetLinger(0) // fails only on a connection that has already ended
	}
	_ = s.close()
}

func (s *Socket) notifyClosed() {
	s.mu.Lock()
	callbacks := s.onClose
	s.closed, s.onClose = true, nil
	s.mu.Unlock()
	for _, f := range callbacks {
		f()
	}
}

// Unread puts p in front of the next bytes to read or to hand over. The Socket owns p
// from then on. No other goroutine may be reading, and Stream must not have been
// called.
func (s *Socket) Unread(p []byte) { s.unread = p }

// Record makes Read append the bytes that it returns to buf, up to buf's capacity. The
// reading goroutine ends the recording with Recorded, before Stream.
func (s *Socket) Record(buf []byte) { s.record = buf }

// Recorded ends a recording and returns it.
func (s *Socket) Recorded() []byte {
	recorded := s.record
	s.record = nil
	return recorded
}

// A recording holds the first bytes read, up to its capacity.
type recording []byte

// keep records as much of p as fits.
func (r *recording) keep(p []byte) {
	if room := cap(*r) - len(*r); room > 0 {
		*r = append(*r, p[:min(len(p), room)]...)
	}
}

// CloseWrite ends the stream toward the peer. Reading continues.
func (s *Socket) CloseWrite() error {
	if err := s.Flush(); err != nil {
		return err
	}
	if c, ok := s.Conn.(interface{ CloseWrite() error }); ok {
		return c.CloseWrite()
	}
	return errors.ErrUnsupported
}

// ReadBeforeReset makes Write succeed although the peer has closed, until s has read some
// bytes. A peer that rejects a message answers it, closes, and resets the connection when
// more bytes arrive. A writer that saw the reset might close s before the peer's answer
// is read. With ReadBeforeReset the reader sees the answer first, and then the end.
func (s *Socket) ReadBeforeReset() { s.sender.readBeforeReset.Store(true) }

// SetWriteDeadline implements net.Conn. After HandOver it has no effect.
func (s *Socket) SetWriteDeadline(t time.Time) error {
	if s.carrier != nil {
		return nil
	}
	return s.Conn.SetWriteDeadline(t)
}
