package files

import (
	"context"
	"fmt"
	"time"
)

const (
	// poolSize is how many reads may hang before no further file is read.
	poolSize = 32

	// poolTime is how long one read may take. A file system that answers takes
	// milliseconds.
	poolTime = 10 * time.Second
)

// A Pool runs what may hang: a network file system whose server is gone blocks
// whoever reads from it in the kernel, where no context reaches. At most a fixed
// number of goroutines hang at once. Its methods may be called concurrently.
type Pool struct {
	slots chan struct{}
	time  time.Duration
}

// NewPool returns a pool in which nothing runs.
func NewPool() *Pool { return &Pool{slots: make(chan struct{}, poolSize), time: poolTime} }

// Do calls f and returns when it has returned. If that takes too long, or ctx
// ends first, it returns an error, and f goes on: the caller must then not touch
// what f writes.
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
