package socket

import (
	"errors"
	"runtime"
	"sync/atomic"
	"syscall"
)

// A resetTracker distinguishes a reset from an orderly end of the peer's stream. The
// kernel reports a reset once: if a write gets the error, the next read sees what looks
// like a clean end, and a truncated stream would look whole.
type resetTracker struct {
	writes atomic.Int32 // writes in progress
	reset  atomic.Bool  // a write failed with ECONNRESET
}

func (e *resetTracker) begin() { e.writes.Add(1) }

func (e *resetTracker) end(err error) {
	if err != nil && errors.Is(err, syscall.ECONNRESET) {
		e.reset.Store(true)
	}
	e.writes.Add(-1)
}

// wasReset reports whether the peer reset the connection, after a read returned the end
// of the stream. If the peer ended its stream before the reset, nothing was cut off:
// the kernel then returns EPIPE to writes.
func (s *Socket) wasReset() bool {
	if s.ends.reset.Load() {
		return true
	}
	over := false
	if s.in.raw != nil {
		_ = s.in.raw.Control(func(fd uintptr) { over = WasReset(int(fd)) }) // fails only if the socket is closed
	}
	// A write that got the error may not have recorded it yet. It does so soon: the
	// connection has ended.
	for over && s.ends.writes.Load() > 0 && !s.ends.reset.Load() {
		runtime.Gosched()
	}
	return s.ends.reset.Load()
}
