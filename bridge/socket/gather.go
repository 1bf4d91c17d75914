package socket

import (
	"errors"
	"net"
	"sync"
	"syscall"
)

// A gather holds what was written and not sent yet. crypto/tls writes each
// record by itself, and a TLS connection is written to by its reader too, who
// answers a KeyUpdate: hence the lock.
type gather struct {
	mu   sync.Mutex
	pool *Pool   // nil until Gather
	buf  *[]byte // nil when nothing is held
	n    int
	err  error // what sending failed with, for good
}

// Gather makes Write hold back what it is given, records of a *tls.Conn on top
// for one, until Flush sends it all with one system call. What is held is
// bounded: when it comes to much, Write sends it, and so may block. A buffer
// from pool is held only while there is something to send.
//
// Close sends what it can without waiting, such as a last close_notify;
// CloseWrite sends all.
//
// It must be called before s is shared between goroutines. Calling it again
// changes nothing.
func (s *Socket) Gather(pool *Pool) {
	if s.out.pool == nil {
		s.out.pool = pool
	}
}

// Flush sends what Write has held back. It may be called by any goroutine, and
// with nothing held it does nothing. When sending has failed once, Flush and
// Write always fail.
func (s *Socket) Flush() error {
	if s.out.pool == nil {
		return nil
	}
	s.out.mu.Lock()
	defer s.out.mu.Unlock()
	return s.flushLocked()
}

// Expect says that n bytes are about to be written, to TLS on top of s perhaps:
// it makes room to hold all of them, if there is a buffer for so many.
func (s *Socket) Expect(n int) {
	s.out.mu.Lock()
	defer s.out.mu.Unlock()
	if s.out.pool == nil || s.out.err != nil {
		return
	}
	// With what TLS adds to each record.
	if n += s.out.n + slack/2; n > s.haveLocked() {
		s.growLocked(s.out.pool.LendMuch(n))
	}
}

// Held returns how many bytes wait to be flushed.
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

// dropLocked forgets what is held.
func (s *Socket) dropLocked() {
	if s.out.buf != nil {
		s.out.pool.Put(s.out.buf)
		s.out.buf, s.out.n = nil, 0
	}
}

// Write is net.Conn's but for HearFirst and Gather.
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
	if err := s.roomLocked(len(p)); err != nil {
		return 0, err
	}
	if s.out.buf == nil { // too much to hold
		n, err := s.send(p)
		s.out.err = err
		return n, err
	}
	s.out.n += copy((*s.out.buf)[s.out.n:], p)
	return len(p), nil
}

// roomLocked sees to it that n more bytes can be held, if need be by sending
// what is held. Without a buffer afterwards n is too much to be held at all.
func (s *Socket) roomLocked(n int) error {
	switch held := s.out.n + n; {
	case held <= s.haveLocked():
	case held <= bulkSize:
		s.growLocked(s.out.pool.Lend(held))
	default:
		if err := s.flushLocked(); err != nil {
			return err
		}
		if n <= BufferSize {
			s.out.buf = s.out.pool.Lend(bulkSize) // it has just been needed
		}
	}
	return nil
}

// haveLocked returns the length of the buffer.
func (s *Socket) haveLocked() int {
	if s.out.buf == nil {
		return 0
	}
	return len(*s.out.buf)
}

// growLocked makes buf the buffer if it is the larger one.
func (s *Socket) growLocked(buf *[]byte) {
	if len(*buf) <= s.haveLocked() {
		s.out.pool.Put(buf)
		return
	}
	if s.out.buf != nil {
		copy(*buf, (*s.out.buf)[:s.out.n])
		s.out.pool.Put(s.out.buf)
	}
	s.out.buf = buf
}

// send writes p to the connection, as HearFirst says.
func (s *Socket) send(p []byte) (int, error) {
	n, err := s.write(p)
	return s.heard(p, n, err)
}

// TryWrite sends as much of p as goes without waiting, which may be nothing:
// that is no error. It is not for a Socket that gathers, or was handed over.
func (s *Socket) TryWrite(p []byte) (int, error) {
	n, err := s.tryWrite(p)
	return s.heard(p, n, err)
}

// heard returns what a write of p came to, as HearFirst says.
func (s *Socket) heard(p []byte, n int, err error) (int, error) {
	if err != nil && s.unheard.Load() && (errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)) {
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

// toDirect returns the Direct to write with, nil if the connection is not such.
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

// sendLast sends what is held as far as that needs no wait: s is being closed.
// A write that is under way in another goroutine is let be; closing ends it.
func (s *Socket) sendLast() {
	if s.out.pool == nil || !s.out.mu.TryLock() {
		return
	}
	defer s.out.mu.Unlock()
	if s.out.n > 0 && s.out.err == nil {
		if c, ok := s.Conn.(syscall.Conn); ok {
			if raw, err := c.SyscallConn(); err == nil {
				// Control and not Write: crypto/tls leaves a write deadline
				// behind that has passed.
				_ = raw.Control(func(fd uintptr) { _, _ = syscall.Write(int(fd), (*s.out.buf)[:s.out.n]) })
			}
		}
	}
	s.dropLocked()
	s.out.err = net.ErrClosed
}
