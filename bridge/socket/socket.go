// Package socket is one connected socket as the bridge needs it: it can be
// reset, it tells once when it is closed, and it can be read without holding a
// buffer while the peer is silent.
//
// Whoever made a Socket owns it and closes it. What was layered on it, such as
// a *tls.Conn, is abandoned with it.
package socket

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// ErrWouldBlock is what Read fails with after Stream when nothing that Fill
// took in is left. It is a temporary net.Error, so that crypto/tls keeps what
// it has of a record and can be asked again.
var ErrWouldBlock error = wouldBlock{}

type wouldBlock struct{}

func (wouldBlock) Error() string   { return "socket: nothing to read yet" }
func (wouldBlock) Timeout() bool   { return true }
func (wouldBlock) Temporary() bool { return true }

// A Socket is a connected TCP or unix-domain socket. It starts as an ordinary
// net.Conn; Stream makes it one that is read in two steps.
//
// One goroutine may read while another writes, and Close and Reset may be
// called at any time.
type Socket struct {
	net.Conn

	mu      sync.Mutex
	closed  bool
	onClose []func() // nil once closed

	unheard atomic.Bool // HearFirst was called and nothing was read since

	// Below: nil and zero until Stream, then used by the reading goroutine alone.
	pool  *Pool
	raw   syscall.RawConn // nil: not a kernel socket, so reads hold a buffer
	try   func(fd uintptr) bool
	buf   *[]byte // nil unless something was taken in
	taken []byte  // the part of *buf not consumed yet
	n     int
	err   error
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

// Close closes the connection. Bytes already written are still delivered.
func (s *Socket) Close() error {
	err := s.Conn.Close()
	s.tellClosed()
	return err
}

// Reset closes the connection so that the peer cannot take its stream for a
// complete one: with a TCP reset, dropping what was not delivered yet. A
// unix-domain socket has no reset, so there the peer sees a plain end.
func (s *Socket) Reset() {
	if c, ok := s.Conn.(interface{ SetLinger(int) error }); ok {
		_ = c.SetLinger(0) // fails only on a connection that is gone already
	}
	_ = s.Close()
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

// CloseWrite ends the stream towards the peer; reading goes on.
func (s *Socket) CloseWrite() error {
	if c, ok := s.Conn.(interface{ CloseWrite() error }); ok {
		return c.CloseWrite()
	}
	return errors.ErrUnsupported
}

// HearFirst makes a Write that fails because the peer has gone succeed, until
// something was read. A peer that refuses what it has heard says so, closes, and
// answers what comes then with a reset. Whoever writes meanwhile would be told of
// the reset and might close s, and what the peer said would never be read. This
// way it is Read that tells of the end, after what the peer said. After Stream
// writes fail as ever.
func (s *Socket) HearFirst() { s.unheard.Store(true) }

// Write is net.Conn's but for HearFirst.
func (s *Socket) Write(p []byte) (int, error) {
	n, err := s.Conn.Write(p)
	if err != nil && s.unheard.Load() && s.pool == nil && (errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)) {
		return len(p), nil
	}
	return n, err
}

// Stream changes how s is read: Fill waits and takes bytes in, Read gives them
// out and never blocks. Buffers come from pool and are held only from a Fill
// until what it took in is consumed.
//
// From here on write deadlines are ignored. crypto/tls sets one of 5s around
// its close_notify, which would cut off a slow reader with a full window;
// whoever calls Stream bounds a stalled write himself, by closing s.
//
// It must be called before s is shared between goroutines, and once.
func (s *Socket) Stream(pool *Pool) {
	s.pool = pool
	s.try = s.tryRead
	if c, ok := s.Conn.(syscall.Conn); ok {
		if raw, err := c.SyscallConn(); err == nil {
			s.raw = raw
		}
	}
}

// SetWriteDeadline is net.Conn's until Stream, and nothing from then on.
func (s *Socket) SetWriteDeadline(t time.Time) error {
	if s.pool != nil {
		return nil
	}
	return s.Conn.SetWriteDeadline(t)
}

// Fill waits until there are bytes to Read. At the end of the peer's stream
// it returns io.EOF. It may be called only after Stream, and reads nothing
// while bytes of an earlier Fill are left.
func (s *Socket) Fill() error {
	if len(s.taken) > 0 {
		return nil
	}
	if s.raw == nil {
		s.buf = s.pool.Get()
		s.n, s.err = s.Conn.Read(*s.buf)
	} else if err := s.raw.Read(s.try); err != nil {
		s.Release()
		return err
	}
	if s.n > 0 { // an error that came with bytes comes again without them
		s.taken = (*s.buf)[:s.n]
		return nil
	}
	s.Release()
	if s.err == nil {
		return io.EOF
	}
	return s.err
}

// tryRead reads without blocking. The runtime calls it again when fd may have
// become readable. The attempt itself has to read: the readiness of an
// edge-triggered poller is forgotten when a wait begins.
func (s *Socket) tryRead(fd uintptr) bool {
	s.buf = s.pool.Get()
	for {
		s.n, s.err = syscall.Read(int(fd), *s.buf)
		if s.err != syscall.EINTR {
			break
		}
	}
	if s.err == syscall.EAGAIN {
		s.Release()
		return false
	}
	return true
}

// Taken returns what Fill took in and nobody has consumed. It is valid until
// the next Read or Release.
func (s *Socket) Taken() []byte { return s.taken }

// Release consumes all that Fill took in and gives its buffer back.
func (s *Socket) Release() {
	s.taken = nil
	if s.buf != nil {
		s.pool.Put(s.buf)
		s.buf = nil
	}
}

// Read is net.Conn's until Stream. From then on it consumes what Fill took in
// and fails with ErrWouldBlock when nothing is left.
func (s *Socket) Read(p []byte) (int, error) {
	if s.pool == nil {
		n, err := s.Conn.Read(p)
		if n > 0 {
			s.unheard.Store(false)
		}
		return n, err
	}
	if len(s.taken) == 0 {
		return 0, ErrWouldBlock
	}
	n := copy(p, s.taken)
	if s.taken = s.taken[n:]; len(s.taken) == 0 {
		s.Release()
	}
	return n, nil
}
