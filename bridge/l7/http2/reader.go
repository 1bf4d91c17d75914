package http2

import (
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

const (
	smallRead = 2 << 10
	largeRead = 32 << 10
)

// largeReads are buffers of connections on which much arrives.
var largeReads = sync.Pool{New: func() any { return new([largeRead]byte) }}

// A reader buffers what arrives. A connection on which little does keeps a
// small buffer; one whose reads fill it takes a large one, until they do not.
type reader struct {
	nc    net.Conn
	buf   []byte // small or large[:]
	small []byte
	large *[largeRead]byte // nil unless in use
	r, w  int
	fast  bool // the last read filled the buffer

	holdsLarge atomic.Bool // large is in use, for others to see

	interrupted func(between bool) error // see conn

	err   error     // of the connection, once it failed
	start time.Time // what times count from

	// last is when something last arrived, and begun since when a frame or a
	// header block has been waited for whose beginning is there; 0: none.
	last, begun atomic.Int64
	inFrame     bool // of begun; used by the reading goroutine alone
}

func newReader(nc net.Conn, early []byte) *reader {
	b := &reader{nc: nc, small: make([]byte, max(smallRead, len(early))), start: time.Now()}
	b.buf = b.small
	b.w = copy(b.buf, early)
	return b
}

func (b *reader) buffered() int { return b.w - b.r }

// wholeFrame reports whether the next frame is in the buffer, so that reading it
// will not wait.
func (b *reader) wholeFrame() bool {
	if b.buffered() < frameHeader {
		return false
	}
	p := b.buf[b.r:]
	return b.buffered() >= frameHeader+int(p[0])<<16+int(p[1])<<8+int(p[2])
}

// view returns the next n bytes, which are in the buffer. They are valid until
// the next call that reads.
func (b *reader) view(n int) []byte {
	p := b.buf[b.r : b.r+n]
	b.r += n
	return p
}

// Read reads as io.Reader's does.
func (b *reader) Read(p []byte) (int, error) {
	if b.r == b.w {
		if len(p) >= len(b.buf) && len(p) >= largeRead/2 {
			n, err := b.receive(p) // as much as the buffer would take
			for err == errInterrupted {
				n, err = b.receive(p)
			}
			return n, err
		}
		if err := b.fill(); err != nil {
			return 0, err
		}
	}
	n := copy(p, b.buf[b.r:b.w])
	b.r += n
	b.inFrame = true
	return n, nil
}

// fill reads into the empty buffer.
func (b *reader) fill() error {
	for {
		switch {
		case b.fast && b.large == nil:
			b.large = largeReads.Get().(*[largeRead]byte)
			b.buf = b.large[:]
			b.holdsLarge.Store(true)
		case !b.fast && b.large != nil:
			b.release()
		}
		b.r, b.w = 0, 0
		if b.small == nil {
			b.small = make([]byte, smallRead)
			b.buf = b.small
		}
		n, err := b.receive(b.buf)
		if err == errInterrupted {
			b.fast = false
			continue
		}
		b.w = n
		b.fast = n == len(b.buf) || b.large != nil && n > smallRead
		return err
	}
}

// errInterrupted is what receive returns if a read was interrupted that may go on.
var errInterrupted = errors.New("http2: the read was interrupted")

func (b *reader) receive(p []byte) (int, error) {
	if b.inFrame && b.begun.Load() == 0 {
		b.begun.Store(max(b.now(), 1))
	}
	n, err := b.nc.Read(p)
	if n == 0 && errors.Is(err, os.ErrDeadlineExceeded) {
		if err = b.interrupted(!b.inFrame); err == nil {
			return 0, errInterrupted
		}
	}
	switch {
	case n > 0:
		b.last.Store(b.now())
		return n, nil
	case err == nil:
		err = io.ErrNoProgress
	case err == ErrParked:
		return 0, err
	}
	b.err = err
	return 0, err
}

// discard reads n bytes and forgets them.
func (b *reader) discard(n int) error {
	for n > 0 {
		if b.r == b.w {
			if err := b.fill(); err != nil {
				return err
			}
		}
		k := min(n, b.buffered())
		b.r += k
		n -= k
	}
	return nil
}

// drop reads once, and forgets up to n bytes of what is here then.
func (b *reader) drop(n int) (int, error) {
	if b.r == b.w {
		if err := b.fill(); err != nil {
			return 0, err
		}
	}
	n = min(n, b.buffered())
	b.r += n
	return n, nil
}

// frameEnded says that what began has arrived whole.
func (b *reader) frameEnded() {
	b.inFrame = false
	if b.begun.Load() != 0 {
		b.begun.Store(0)
	}
}

// release gives the large buffer back.
func (b *reader) release() {
	if b.large != nil {
		largeReads.Put(b.large)
		b.large, b.buf = nil, b.small
		b.holdsLarge.Store(false)
		b.r, b.w = 0, 0
	}
}

// dropBuffers releases all buffers, which are empty: nothing is read for a while.
func (b *reader) dropBuffers() {
	b.release()
	b.small, b.buf, b.fast = nil, nil, false
}

func (b *reader) now() int64 { return int64(time.Since(b.start)) }
