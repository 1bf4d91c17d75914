package socket

import (
	"errors"
	"runtime"
	"sync/atomic"
	"syscall"
)

// An ending tells a reset from an orderly end of the peer's stream. The kernel
// reports a reset once: if a write is told, a read that follows sees an end of the
// stream like any other, and what was cut off would look whole.
type ending struct {
	writes atomic.Int32 // writes under way
	reset  atomic.Bool  // one of them was told of a reset
}

func (e *ending) begin() { e.writes.Add(1) }

func (e *ending) end(err error) {
	if err != nil && errors.Is(err, syscall.ECONNRESET) {
		e.reset.Store(true)
	}
	e.writes.Add(-1)
}

// wasReset reports whether the peer reset the connection, on which a read has just
// come to the end of the stream. A peer that ended its stream before the reset did
// not cut it off: the kernel tells writes EPIPE then.
func (s *Socket) wasReset() bool {
	if s.ends.reset.Load() {
		return true
	}
	over := false
	if s.in.raw != nil {
		_ = s.in.raw.Control(func(fd uintptr) { over = WasReset(int(fd)) }) // fails only if it is closed
	}
	// A write that was told of the reset may not have noted it yet. None waits for
	// long: there is no connection any more.
	for over && s.ends.writes.Load() > 0 && !s.ends.reset.Load() {
		runtime.Gosched()
	}
	return s.ends.reset.Load()
}
