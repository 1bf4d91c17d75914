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

// largeReads are the buffers of busy connections.
var largeReads = sync.Pool{New: func() any { return new([largeRead]byte) }}

// A reader buffers received bytes. It starts with a small buffer. When a read
// fills it, the reader takes a large one until reads are small again.
type reader struct {
	nc           net.Conn
	buf          []byte // small or large[:]
	small        []byte
	large        *[largeRead]byte // nil if not in use
	r, w         int
	lastReadFull bool // the last read filled the buffer

	holdsLarge atomic.Bool // large is in use; for other goroutines

	interrupted func(between bool) error // see conn

	err   error     // why the connection failed
	start time.Time // time zero of now

	// last is when bytes last arrived. begun is since when the reader has
	// waited for the rest of a frame or header block, or 0.
	last, begun atomic.Int64
	inFrame     bool // a frame or header block has begun; used only by the reading goroutine
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

// view returns the next n bytes, which are in the buffer. They stay valid until
// the next call that reads.
func (b *reader) view(n int) []byte {
	p := b.buf[b.r : b.r+n]
	b.r += n
	return p
}

// Read implements io.Reader.
func (b *reader) Read(p []byte) (int, error) {
	if b.r == b.w {
		if len(p) >= len(b.buf) && len(p) >= largeRead/2 {
			n, err := b.receive(p) // p holds at least as much as the buffer
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
		case b.lastReadFull && b.large == nil:
			b.large = largeReads.Get().(*[largeRead]byte)
			b.buf = b.large[:]
			b.holdsLarge.Store(true)
		case !b.lastReadFull && b.large != nil:
			b.release()
		}
		b.r, b.w = 0, 0
		if b.small == nil {
			b.small = make([]byte, smallRead)
			b.buf = b.small
		}
		n, err := b.receive(b.buf)
		if err == errInterrupted {
			b.lastReadFull = false
			continue
		}
		b.w = n
		b.lastReadFull = n == len(b.buf) || b.large != nil && n > smallRead
		return err
	}
}

// errInterrupted reports that a read was interrupted and should be repeated.
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

// discard reads and drops n bytes.
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

// drop reads once at most, and drops up to n of the buffered bytes.
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

// frameEnded records that the current frame or header block is complete.
func (b *reader) frameEnded() {
	b.inFrame = false
	if b.begun.Load() != 0 {
		b.begun.Store(0)
	}
}

// release returns the large buffer to its pool.
func (b *reader) release() {
	if b.large != nil {
		largeReads.Put(b.large)
		b.large, b.buf = nil, b.small
		b.holdsLarge.Store(false)
		b.r, b.w = 0, 0
	}
}

// dropBuffers frees all buffers, which must be empty, while nothing is read.
func (b *reader) dropBuffers() {
	b.release()
	b.small, b.buf, b.lastReadFull = nil, nil, false
}

func (b *reader) now() int64 { return int64(time.Since(b.start)) }
