package socket

import (
	"errors"
	"net"
	"sync"
	"syscall"
)

// A gather holds bytes that were written and not sent yet. It has a lock because
// crypto/tls writes from the reading goroutine too, when it answers a KeyUpdate.
type gather struct {
	mu   sync.Mutex
	pool *Pool   // nil until Gather
	buf  *[]byte // nil while nothing is held
	n    int
	err  error // the first error of sending; permanent
}

// Gather makes Write hold its bytes until Flush sends all of them with one system call;
// crypto/tls writes each record separately. The amount is bounded: a Write beyond the
// bound sends what is held, and may block. The Socket holds a buffer from pool only
// while there is something to send.
//
// Close sends what it can without waiting, such as a last close_notify. CloseWrite
// sends everything.
//
// Gather must be called before s is shared between goroutines. A second call has no
// effect.
func (s *Socket) Gather(pool *Pool) {
	if s.out.pool == nil {
		s.out.pool = pool
	}
}

// Flush sends what Write holds. Any goroutine may call it; with nothing held it does
// nothing. After one failed send, Flush and Write always fail.
func (s *Socket) Flush() error {
	if s.out.pool == nil {
		return nil
	}
	s.out.mu.Lock()
	defer s.out.mu.Unlock()
	return s.flushLocked()
}

// Expect reserves room for n bytes that are about to be written, perhaps through TLS on
// top of s, if the pool has a buffer of that size.
func (s *Socket) Expect(n int) {
	s.out.mu.Lock()
	defer s.out.mu.Unlock()
	if s.out.pool == nil || s.out.err != nil {
		return
	}
	// Includes what TLS adds to each record.
	if n += s.out.n + slack/2; n > s.capacityLocked() {
		s.growLocked(s.out.pool.LendMuch(n))
	}
}

// Held returns how many bytes Flush would send.
func (s *Socket) Held() int {
	s.out.mu.Lock()
	defer s.out.mu.Unlock()
	return s.out.n
}

func (s *Socket) flushLocked() error {
	if s.out.n == 0 || s.out.err != nil {
		s.dropLocked()
		return s.out.err
	}
	n, err := s.TryWrite((*s.out.buf)[:s.out.n])
	if err == nil && n < s.out.n {
		rest := (*s.out.buf)[n:s.out.n] // the wait may be long
		if b := s.out.pool.Shrink(s.out.buf, rest); b != s.out.buf {
			s.out.buf, rest = b, (*b)[:len(rest)]
		}
		_, err = s.send(rest)
	}
	s.out.err = err
	s.dropLocked()
	return err
}

// dropLocked discards what is held.
func (s *Socket) dropLocked() {
	if s.out.buf != nil {
		s.out.pool.Put(s.out.buf)
		s.out.buf, s.out.n = nil, 0
	}
}

// Write implements net.Conn, as changed by HearFirst, Gather and HandOver.
func (s *Socket) Write(p []byte) (int, error) {
	if s.carrier != nil {
		return s.carrier.Write(p)
	}
	if s.out.pool == nil {
		return s.send(p)
	}
	s.out.mu.Lock()
	defer s.out.mu.Unlock()
	if s.out.err != nil {
		return 0, s.out.err
	}
	if err := s.makeRoomLocked(len(p)); err != nil {
		return 0, err
	}
	if s.out.buf == nil { // too large to hold
		n, err := s.send(p)
		s.out.err = err
		return n, err
	}
	s.out.n += copy((*s.out.buf)[s.out.n:], p)
	return len(p), nil
}

// makeRoomLocked makes room for n more bytes, if necessary by sending what is held. If
// there is no buffer afterwards, n is too large to hold.
func (s *Socket) makeRoomLocked(n int) error {
	switch held := s.out.n + n; {
	case held <= s.capacityLocked():
	case held <= bulkSize:
		s.growLocked(s.out.pool.Lend(held))
	default:
		if err := s.flushLocked(); err != nil {
			return err
		}
		if n <= BufferSize {
			s.out.buf = s.out.pool.Lend(bulkSize) // this stream has just filled one
		}
	}
	return nil
}

// capacityLocked returns the length of the buffer.
func (s *Socket) capacityLocked() int {
	if s.out.buf == nil {
		return 0
	}
	return len(*s.out.buf)
}

// growLocked replaces the buffer with buf if buf is larger.
func (s *Socket) growLocked(buf *[]byte) {
	if len(*buf) <= s.capacityLocked() {
		s.out.pool.Put(buf)
		return
	}
	if s.out.buf != nil {
		copy(*buf, (*s.out.buf)[:s.out.n])
		s.out.pool.Put(s.out.buf)
	}
	s.out.buf = buf
}

// send writes p to the connection, and ignores the errors that HearFirst hides.
func (s *Socket) send(p []byte) (int, error) {
	n, err := s.write(p)
	return s.hideError(p, n, err)
}

// TryWrite sends as much of p as possible without waiting. A short write is not an
// error. It must not be used on a Socket that gathers or was handed over.
func (s *Socket) TryWrite(p []byte) (int, error) {
	n, err := s.tryWrite(p)
	return s.hideError(p, n, err)
}

// hideError replaces the result of a write of p while HearFirst is in effect.
func (s *Socket) hideError(p []byte, n int, err error) (int, error) {
	if err != nil && s.hearFirst.Load() && (errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)) {
		return len(p), nil
	}
	return n, err
}

// write writes p to the connection.
func (s *Socket) write(p []byte) (n int, err error) {
	s.ends.begin()
	if d := s.toDirect(); d != nil {
		n, err = d.Write(p)
	} else {
		n, err = s.Conn.Write(p)
	}
	s.ends.end(err)
	return n, err
}

func (s *Socket) tryWrite(p []byte) (n int, err error) {
	s.ends.begin()
	defer func() { s.ends.end(err) }()
	if d := s.toDirect(); d != nil {
		return d.TryWrite(p)
	}
	if c, ok := s.Conn.(interface{ TryWrite([]byte) (int, error) }); ok {
		return c.TryWrite(p)
	}
	return 0, nil
}

// toDirect returns the Direct to write with, or nil if the connection is not a kernel
// socket.
func (s *Socket) toDirect() *Direct {
	switch s.Conn.(type) {
	case *net.TCPConn, *net.UnixConn:
		if s.direct == nil {
			s.direct = NewDirect(s.Conn)
		}
		return s.direct
	}
	return nil
}

// sendLast sends what it can without waiting, before s closes. It skips a write that
// another goroutine has in progress; closing ends that write.
func (s *Socket) sendLast() {
	if s.out.pool == nil || !s.out.mu.TryLock() {
		return
	}
	defer s.out.mu.Unlock()
	if s.out.n > 0 && s.out.err == nil {
		if c, ok := s.Conn.(syscall.Conn); ok {
			if raw, err := c.SyscallConn(); err == nil {
				// Control instead of Write, because crypto/tls leaves an expired write
				// deadline behind.
				_ = raw.Control(func(fd uintptr) { _, _ = syscall.Write(int(fd), (*s.out.buf)[:s.out.n]) })
			}
		}
	}
	s.dropLocked()
	s.out.err = net.ErrClosed
}
