package socket

import (
	"io"
	"syscall"
	"time"
)

// ErrWouldBlock is Read's error after Stream when all bytes from Fill have been read.
// It is a temporary net.Error, so crypto/tls keeps its partial record and can continue
// later.
var ErrWouldBlock error = wouldBlock{}

type wouldBlock struct{}

func (wouldBlock) Error() string   { return "socket: nothing to read yet" }
func (wouldBlock) Timeout() bool   { return true }
func (wouldBlock) Temporary() bool { return true }

// A stream is the reading half of a Socket after Stream. Only the reading goroutine
// uses it.
type stream struct {
	pool  Lender          // has no Pool until Stream
	raw   syscall.RawConn // nil if not a kernel socket: then reads hold a buffer
	wait  func(fd uintptr) bool
	look  func(fd uintptr)
	buf   *[]byte // nil while nothing is buffered
	taken []byte  // the unconsumed part of *buf
	last  int     // size of the last read: the next is likely to be similar
	n     int
	err   error
	flood FloodMeter
	pause bool // the next Fill waits for FloodPause

	into    *Socket          // the destination of the bytes; nil if unknown
	measure func(fd uintptr) // a function that sets room; nil until needed
	room    int              // how much into's send buffer can hold

	mayWait bool // BeginWait is allowed
	waits   bool // BeginWait has succeeded: Read waits, as before Stream

	// State of Exchange.
	exchange  func(fd uintptr) bool
	exchanged bool   // the peer had sent nothing, and the request was written as far as possible
	request   []byte // the unsent rest of the request
	sent      func() // called when the request is sent
	drop      func() // the method value of dropLocked
}

// Stream changes how s is read. Fill waits and receives bytes, many records at a time
// if available; Read returns them and never blocks. The Socket holds a buffer of pool
// only from a Fill until its bytes are consumed, so it holds none while the peer is
// silent. The reader, directly or through a *tls.Conn on top, reads until
// ErrWouldBlock, releases its own buffers, and calls Fill.
//
// Stream must be called before s is shared between goroutines. A second call has no
// effect.
func (s *Socket) Stream(pool *Pool) {
	if s.in.pool.pool != nil {
		return
	}
	s.in.pool = NewLender(pool)
	s.in.taken, s.unread = s.unread, nil
	s.in.wait, s.in.look = s.in.tryRead, func(fd uintptr) { s.in.tryRead(fd) }
	s.in.exchange, s.in.drop = s.tryExchange, s.out.dropLocked
	if c, ok := s.Conn.(syscall.Conn); ok {
		if raw, err := c.SyscallConn(); err == nil {
			s.in.raw = raw
		}
	}
}

// Fill waits until there are bytes to Read, and returns io.EOF at the end of the peer's
// stream. It may be called only after Stream, and returns at once while bytes of an
// earlier Fill are left. An expired read deadline ends it; the next Fill receives the
// bytes that arrive later.
func (s *Socket) Fill() error {
	if len(s.in.taken) > 0 {
		return nil
	}
	if s.in.pause {
		s.in.pause = false
		time.Sleep(FloodPause)
	}
	if s.in.raw == nil {
		s.in.buf = s.in.pool.Read(BufferSize)
		s.in.n, s.in.err = s.Conn.Read(*s.in.buf)
	} else if err := s.in.raw.Read(s.in.wait); err != nil {
		s.Release()
		return err
	}
	return s.filled()
}

// TryFill is Fill without the wait. It checks whether an idle connection is still
// alive, and keeps all bytes that have arrived. ErrWouldBlock means that the connection
// is alive and silent. Nil means that bytes arrived; over TLS they may be a ticket,
// which tls.Conn.Read consumes and then fails with ErrWouldBlock. Any other error means
// that the connection has ended. A connection that is not a kernel socket always
// returns ErrWouldBlock.
func (s *Socket) TryFill() error {
	if len(s.in.taken) > 0 {
		return nil
	}
	if s.in.raw == nil {
		return ErrWouldBlock
	}
	if err := s.in.raw.Control(s.in.look); err != nil {
		return err
	}
	if s.in.err == syscall.EAGAIN {
		return ErrWouldBlock
	}
	return s.filled()
}

// AllowWait sets whether BeginWait may succeed, and ends the effect of an earlier
// BeginWait. Only the reading goroutine may call it.
func (s *Socket) AllowWait(allowed bool) { s.in.mayWait, s.in.waits = allowed, false }

// BeginWait makes Read send the bytes that Gather holds and then wait for bytes, until
// AllowWait is called. A TLS handshake within a read needs that, because it cannot be
// continued later. BeginWait reports false if AllowWait has not allowed it. Only the
// reading goroutine may call it.
func (s *Socket) BeginWait() bool {
	if s.carrier == nil && s.in.pool.pool == nil {
		return true // reads wait anyway
	}
	s.in.waits = s.in.mayWait && s.carrier == nil
	return s.in.waits
}

// filled handles the result of a read.
func (s *Socket) filled() error {
	s.in.last = s.in.n
	if s.in.n > 0 { // the next read repeats an error that came with bytes
		s.in.taken = (*s.in.buf)[:s.in.n]
		s.sender.readBeforeReset.Store(false)
		s.in.meter(&s.sender)
		return nil
	}
	s.Release()
	if s.in.err == nil && s.sender.wasReset(s.in.raw) {
		return syscall.ECONNRESET
	}
	if s.in.err == nil {
		return io.EOF
	}
	return s.in.err
}

// tryRead reads without blocking. The runtime calls it again when fd may be readable.
// It must read on each call, because an edge-triggered poller forgets an earlier event
// when a wait begins.
func (in *stream) tryRead(fd uintptr) bool {
	n := in.readSize()
	in.buf = in.pool.Read(n)
	in.n, in.err = ReadNow(int(fd), (*in.buf)[:min(n, len(*in.buf))])
	if in.err == syscall.EAGAIN {
		in.release()
		return false
	}
	return true
}

// FlowInto sets the Socket to which the bytes read from s are written, on which Stream
// was called too; nil means unknown. In a bulk flow each read is then as large as that
// socket's free send buffer: larger reads wake peers less often, and little is left if
// the destination stops reading. Only the reading goroutine may call it.
func (s *Socket) FlowInto(to *Socket) { s.in.into = to }

// readSize returns how much to read at once.
func (in *stream) readSize() int {
	switch {
	case in.last < BufferSize:
		return BufferSize
	case in.last < bulkSize || in.into == nil || in.into.in.raw == nil:
		return bulkSize
	}
	if in.measure == nil {
		in.measure = func(fd uintptr) { in.room = Room(int(fd)) }
	}
	in.room = 0
	_ = in.into.in.raw.Control(in.measure) // fails only if the socket is closed, and then writing fails too
	return min(max(in.room, bulkSize), flowSize)
}

// Taken returns the unconsumed bytes of the last Fill. They are valid until the next
// Read or Release.
func (s *Socket) Taken() []byte { return s.in.taken }

// Release discards the unconsumed bytes and returns the buffer to the pool.
func (s *Socket) Release() { s.in.release() }

func (in *stream) release() {
	in.taken = nil
	if in.buf != nil {
		in.pool.Put(in.buf)
		in.buf = nil
	}
}

// Shrink moves unconsumed bytes to a buffer no larger than they need. It is called
// before a wait for another event.
func (s *Socket) Shrink() {
	if len(s.in.taken) == 0 {
		s.Release()
	} else if b := s.in.pool.Shrink(s.in.buf, s.in.taken); b != s.in.buf {
		s.in.buf, s.in.taken = b, (*b)[:len(s.in.taken)]
	}
}

// Read implements net.Conn. After Stream it returns the bytes that Fill received, and
// then fails with ErrWouldBlock.
func (s *Socket) Read(p []byte) (n int, err error) {
	if err := s.records.check(); err != nil {
		return 0, err
	}
	switch {
	case s.carrier != nil:
		n, err = s.carrier.Read(p)
	case len(s.unread) > 0:
		n = copy(p, s.unread)
		s.unread = s.unread[n:]
		s.record.keep(p[:n])
	case s.in.pool.pool == nil:
		if n, err = s.Conn.Read(p); n > 0 {
			s.sender.readBeforeReset.Store(false)
			s.record.keep(p[:n])
		}
	default:
		if len(s.in.taken) == 0 {
			if err := s.await(); err != nil {
				return 0, err
			}
		}
		n = copy(p, s.in.taken)
		if s.in.taken = s.in.taken[n:]; len(s.in.taken) == 0 {
			s.Release()
		}
	}
	s.records.add(p[:n])
	return n, err
}

// await waits for bytes if BeginWait has allowed it.
func (s *Socket) await() error {
	if !s.in.waits {
		return ErrWouldBlock
	}
	if err := s.Flush(); err != nil { // the peer may wait for these bytes
		return err
	}
	return s.Fill()
}
