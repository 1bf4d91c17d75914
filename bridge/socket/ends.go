package socket

import (
	"errors"
	"sync/atomic"
	"syscall"
)

// A resetTracker distinguishes a reset from an orderly end of the peer's stream. The
// kernel reports a reset once. If a write gets the error, the next read reports a clean
// end, and a truncated stream would look complete.
type resetTracker struct {
	writes atomic.Int32 // writes in progress
	reset  atomic.Bool  // a write has failed with ECONNRESET
}

func (e *resetTracker) begin() { e.writes.Add(1) }

func (e *resetTracker) end(err error) {
	if err != nil && errors.Is(err, syscall.ECONNRESET) {
		e.reset.Store(true)
	}
	e.writes.Add(-1)
}
