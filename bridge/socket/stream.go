package socket

import (
	"io"
	"syscall"
)

// ErrWouldBlock is what Read fails with after Stream when nothing that Fill
// took in is left. It is a temporary net.Error, so that crypto/tls keeps what
// it has of a record and can be asked again.
var ErrWouldBlock error = wouldBlock{}

type wouldBlock struct{}

func (wouldBlock) Error() string   { return "socket: nothing to read yet" }
func (wouldBlock) Timeout() bool   { return true }
func (wouldBlock) Temporary() bool { return true }

// A stream is the reading half of a Socket after Stream. The reading goroutine
// alone uses it.
type stream struct {
	pool  *Pool           // nil until Stream
	raw   syscall.RawConn // nil: not a kernel socket, so reads hold a buffer
	wait  func(fd uintptr) bool
	look  func(fd uintptr)
	buf   *[]byte // nil unless something was taken in
	taken []byte  // the part of *buf not consumed yet
	last  int     // what the last read brought: likely what the next one will
	n     int
	err   error

	into    *Socket          // where it goes; nil: not known
	measure func(fd uintptr) // sets room; nil until it is needed
	room    int              // how much into's kernel buffer can take

	// Of Ask.
	ask     func(fd uintptr) bool
	asked   bool   // nothing had come, and what there was to send has been tried
	request []byte // what is to be sent, or is left of it
	sent    func() // called when it is
	drop    func() // dropLocked
}

// Stream changes how s is read: Fill waits and takes bytes in, many records at
// a time if they are there, and Read gives them out and never blocks. Buffers
// come from pool and are held only from a Fill until what it took in is
// consumed: none while nothing comes. So whoever reads, directly or through a
// *tls.Conn on top, reads until ErrWouldBlock, lets go of the buffers of his
// own, and calls Fill.
//
// It must be called before s is shared between goroutines. Calling it again
// changes nothing.
func (s *Socket) Stream(pool *Pool) {
	if s.in.pool != nil {
		return
	}
	s.in.pool = pool
	s.in.taken, s.ahead = s.ahead, nil
	s.in.wait, s.in.look = s.tryRead, func(fd uintptr) { s.tryRead(fd) }
	s.in.ask, s.in.drop = s.tryAsk, s.dropLocked
	if c, ok := s.Conn.(syscall.Conn); ok {
		if raw, err := c.SyscallConn(); err == nil {
			s.in.raw = raw
		}
	}
}

// Fill waits until there are bytes to Read. At the end of the peer's stream
// it returns io.EOF. It may be called only after Stream, and reads nothing
// while bytes of an earlier Fill are left. A read deadline that passes ends
// it, and what comes later is still there for the next Fill.
func (s *Socket) Fill() error {
	if len(s.in.taken) > 0 {
		return nil
	}
	if s.in.raw == nil {
		s.in.buf = s.in.pool.Get()
		s.in.n, s.in.err = s.Conn.Read(*s.in.buf)
	} else if err := s.in.raw.Read(s.in.wait); err != nil {
		s.Release()
		return err
	}
	return s.filled()
}

// TryFill is Fill without the wait: with nothing there it fails with
// ErrWouldBlock. So it tells whether a connection that has been idle is still
// alive, and loses nothing of what may have come meanwhile: with ErrWouldBlock
// it is; with nil something came, which over TLS may be a ticket that
// tls.Conn.Read answers with ErrWouldBlock, having nothing to give out; with
// anything else the connection is over. A connection that is no kernel socket
// always fails with ErrWouldBlock.
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

// filled looks at what a read came to.
func (s *Socket) filled() error {
	s.in.last = s.in.n
	if s.in.n > 0 { // an error that came with bytes comes again without them
		s.in.taken = (*s.in.buf)[:s.in.n]
		s.unheard.Store(false)
		return nil
	}
	s.Release()
	if s.in.err == nil && s.wasReset() {
		return syscall.ECONNRESET
	}
	if s.in.err == nil {
		return io.EOF
	}
	return s.in.err
}

// tryRead reads without blocking. The runtime calls it again when fd may have
// become readable. The attempt itself has to read: the readiness of an
// edge-triggered poller is forgotten when a wait begins.
func (s *Socket) tryRead(fd uintptr) bool {
	n := s.appetite()
	s.in.buf = s.in.pool.LendMuch(n)
	s.in.n, s.in.err = ReadNow(int(fd), (*s.in.buf)[:min(n, len(*s.in.buf))])
	if s.in.err == syscall.EAGAIN {
		s.Release()
		return false
	}
	return true
}

// FlowInto says that what is read from s is written to another Socket, whose
// Stream was called too; nil: that nothing is known of it. While s is in full
// flow as much is read at once as that has room for: the more, the fewer times
// are peers woken, and little is left if it stops taking. The reading goroutine
// calls it.
func (s *Socket) FlowInto(to *Socket) { s.in.into = to }

// appetite returns how much to read at once.
func (s *Socket) appetite() int {
	switch {
	case s.in.last < BufferSize:
		return BufferSize
	case s.in.last < bulkSize || s.in.into == nil || s.in.into.in.raw == nil:
		return bulkSize
	}
	if s.in.measure == nil {
		s.in.measure = func(fd uintptr) { s.in.room = Room(int(fd)) }
	}
	s.in.room = 0
	_ = s.in.into.in.raw.Control(s.in.measure) // fails only if it is closed, and then so does writing
	return min(max(s.in.room, bulkSize), flowSize)
}

// Taken returns what Fill took in and nobody has consumed. It is valid until
// the next Read or Release.
func (s *Socket) Taken() []byte { return s.in.taken }

// Release consumes all that Fill took in and gives its buffer back.
func (s *Socket) Release() {
	s.in.taken = nil
	if s.in.buf != nil {
		s.in.pool.Put(s.in.buf)
		s.in.buf = nil
	}
}

// Shrink is called before a wait for something else: what Fill took in and nobody
// has consumed is held in a buffer no larger than it needs.
func (s *Socket) Shrink() {
	if len(s.in.taken) == 0 {
		s.Release()
	} else if b := s.in.pool.Shrink(s.in.buf, s.in.taken); b != s.in.buf {
		s.in.buf, s.in.taken = b, (*b)[:len(s.in.taken)]
	}
}

// Read is net.Conn's until Stream. From then on it consumes what Fill took in
// and fails with ErrWouldBlock when nothing is left.
func (s *Socket) Read(p []byte) (int, error) {
	if s.carrier != nil {
		return s.carrier.Read(p)
	}
	if len(s.ahead) > 0 {
		n := copy(p, s.ahead)
		s.ahead = s.ahead[n:]
		return n, nil
	}
	if s.in.pool == nil {
		n, err := s.Conn.Read(p)
		if n > 0 {
			s.unheard.Store(false)
		}
		return n, err
	}
	if len(s.in.taken) == 0 {
		return 0, ErrWouldBlock
	}
	n := copy(p, s.in.taken)
	if s.in.taken = s.in.taken[n:]; len(s.in.taken) == 0 {
		s.Release()
	}
	return n, nil
}
