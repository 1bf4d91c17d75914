package socket

import (
	"net"
	"sync"
	"syscall"
)

// A gather holds bytes that were written but not sent yet. It has a lock because
// crypto/tls writes from the reading goroutine too, when it answers a KeyUpdate.
type gather struct {
	to   *sender // writes the held bytes
	mu   sync.Mutex
	pool *Pool   // nil until Gather
	buf  *[]byte // nil while nothing is held
	n    int
	err  error // the first error of sending; permanent
}

// Gather makes Write hold its bytes until Flush sends all of them with one system call;
// crypto/tls writes each record separately. The amount is bounded: a Write beyond the
// bound sends the held bytes, and may block. The Socket holds a buffer from pool only
// while it has bytes to send.
//
// Close sends as much as it can without waiting, such as a last close_notify.
// CloseWrite sends everything.
//
// Gather must be called before s is shared between goroutines. A second call has no
// effect.
func (s *Socket) Gather(pool *Pool) {
	if s.out.pool == nil {
		s.out.pool = pool
	}
}

// Flush sends the bytes that Write holds, if any. Any goroutine may call it. After
// one failed send, Flush and Write always fail.
func (s *Socket) Flush() error {
	if s.out.pool == nil {
		return nil
	}
	s.out.mu.Lock()
	defer s.out.mu.Unlock()
	return s.out.flushLocked()
}

// Expect reserves room for n bytes that are about to be written, perhaps through TLS on
// top of s, if the pool has a buffer of that size.
func (s *Socket) Expect(n int) {
	s.out.mu.Lock()
	defer s.out.mu.Unlock()
	if s.out.pool == nil || s.out.err != nil {
		return
	}
	// The sum includes the overhead of each TLS record.
	if n += s.out.n + slack/2; n > s.out.capacityLocked() {
		s.out.growLocked(s.out.pool.LendLarge(n))
	}
}

// Held returns how many bytes Flush would send.
func (s *Socket) Held() int {
	s.out.mu.Lock()
	defer s.out.mu.Unlock()
	return s.out.n
}

func (g *gather) flushLocked() error {
	if g.n == 0 || g.err != nil {
		g.dropLocked()
		return g.err
	}
	n, err := g.to.trySend((*g.buf)[:g.n])
	if err == nil && n < g.n {
		rest := (*g.buf)[n:g.n] // the wait may be long
		if b := g.pool.Shrink(g.buf, rest); b != g.buf {
			g.buf, rest = b, (*b)[:len(rest)]
		}
		_, err = g.to.send(rest)
	}
	g.err = err
	g.dropLocked()
	return err
}

func (g *gather) tryFlushLocked() (done bool, err error) {
	if g.n == 0 || g.err != nil {
		g.dropLocked()
		return true, g.err
	}
	n, err := g.to.trySend((*g.buf)[:g.n])
	if err == nil && n < g.n {
		g.buf = g.pool.Trim(g.buf, (*g.buf)[n:g.n])
		g.n -= n
		return false, nil
	}
	g.err = err
	g.dropLocked()
	return true, err
}

// dropLocked discards the held bytes.
func (g *gather) dropLocked() {
	if g.buf != nil {
		g.pool.Put(g.buf)
		g.buf, g.n = nil, 0
	}
}

// Write implements net.Conn, as changed by ReadBeforeReset, Gather and HandOver.
func (s *Socket) Write(p []byte) (int, error) {
	if s.carrier != nil {
		return s.carrier.Write(p)
	}
	if s.out.pool == nil {
		return s.sender.send(p)
	}
	s.out.mu.Lock()
	defer s.out.mu.Unlock()
	if s.out.err != nil {
		return 0, s.out.err
	}
	if err := s.out.makeRoomLocked(len(p)); err != nil {
		return 0, err
	}
	if s.out.buf == nil { // too large to hold
		n, err := s.sender.send(p)
		s.out.err = err
		return n, err
	}
	s.out.n += copy((*s.out.buf)[s.out.n:], p)
	return len(p), nil
}

// makeRoomLocked makes room for n more bytes, if necessary by sending the held bytes.
// If there is no buffer afterward, n is too large to hold.
func (g *gather) makeRoomLocked(n int) error {
	switch held := g.n + n; {
	case held <= g.capacityLocked():
	case held <= bulkSize:
		g.growLocked(g.pool.Lend(held))
	default:
		if err := g.flushLocked(); err != nil {
			return err
		}
		if n <= BufferSize {
			g.buf = g.pool.Lend(bulkSize) // this stream has just filled a smaller buffer
		}
	}
	return nil
}

// capacityLocked returns the length of the buffer.
func (g *gather) capacityLocked() int {
	if g.buf == nil {
		return 0
	}
	return len(*g.buf)
}

// growLocked replaces the buffer with buf if buf is larger.
func (g *gather) growLocked(buf *[]byte) {
	if len(*buf) <= g.capacityLocked() {
		g.pool.Put(buf)
		return
	}
	if g.buf != nil {
		copy(*buf, (*g.buf)[:g.n])
		g.pool.Put(g.buf)
	}
	g.buf = buf
}

// TryWrite sends as much of p as possible without waiting. A short write is not an
// error. It must not be used on a Socket that gathers or was handed over.
func (s *Socket) TryWrite(p []byte) (int, error) { return s.sender.trySend(p) }

// sendLast sends as much as it can without waiting, before the Socket closes. It skips a
// write that another goroutine has in progress; closing ends that write.
func (g *gather) sendLast() {
	if g.pool == nil || !g.mu.TryLock() {
		return
	}
	defer g.mu.Unlock()
	if g.n > 0 && g.err == nil {
		if c, ok := g.to.conn.(syscall.Conn); ok {
			if raw, err := c.SyscallConn(); err == nil {
				// Control instead of Write, because crypto/tls leaves an expired write
				// deadline behind.
				_ = raw.Control(func(fd uintptr) { _, _ = syscall.Write(int(fd), (*g.buf)[:g.n]) })
			}
		}
	}
	g.dropLocked()
	g.err = net.ErrClosed
}
