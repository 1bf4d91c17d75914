package files

import (
	"context"
	"fmt"
	"time"
)

const (
	// poolSize bounds how many reads may hang before all further reads wait.
	poolSize = 32

	// poolTime bounds one read. A working file system takes milliseconds.
	poolTime = 10 * time.Second
)

// A Pool runs functions that may hang: a read from a network file system without a
// server blocks in the kernel, where a context cannot cancel it. The pool bounds how
// many goroutines hang at once. Its methods may be called concurrently.
type Pool struct {
	slots chan struct{}
	time  time.Duration
}

// NewPool returns an idle pool.
func NewPool() *Pool { return &Pool{slots: make(chan struct{}, poolSize), time: poolTime} }

// Do calls f and returns when f has returned. If f takes too long, or if ctx ends
// first, Do returns an error while f is still running. Then the caller must not touch
// anything that f writes.
func (p *Pool) Do(ctx context.Context, f func()) error {
	ctx, cancel := context.WithTimeout(ctx, p.time)
	defer cancel()
	select {
	case p.slots <- struct{}{}:
	case <-ctx.Done():
		return fmt.Errorf("%d other reads hang: %w", cap(p.slots), ctx.Err())
	}
	done := make(chan struct{})
	go func() {
		defer func() { <-p.slots }()
		defer close(done)
		f()
	}()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
