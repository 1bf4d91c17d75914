package upstream

import (
	"context"
	"fmt"
	"runtime/debug"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
)

// A worker runs one goroutine. It cannot be restarted.
//
// Workers read data from peers, so a panic must not end the process: the worker
// logs it and calls the work again after a pause.
type worker struct {
	mu      sync.Mutex
	cancel  context.CancelFunc // nil until begin
	ended   chan struct{}      // closed when the goroutine has returned
	stopped bool
}

// begin reports whether the caller must start the goroutine now, by calling
// run with the returned context. It does so at most once, and never after end.
func (w *worker) begin() (context.Context, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.stopped || w.cancel != nil {
		return nil, false
	}
	ctx, cancel := context.WithCancel(context.Background())
	w.cancel, w.ended = cancel, make(chan struct{})
	return ctx, true
}

// run calls work until ctx, which begin returned, ends. Work must then return
// soon.
func (w *worker) run(ctx context.Context, log hclog.Logger, name string, work func(context.Context)) {
	go func() {
		defer close(w.ended)
		pause := backoff{first: time.Second, most: time.Minute}
		for {
			last := ctx.Err() != nil // work is called once more, to clean up
			if err := protect(log, name, func() { work(ctx) }); err == nil || last {
				return
			}
			pause.grow(time.Now())
			select {
			case <-ctx.Done():
			case <-time.After(time.Until(pause.until)):
			}
		}
	}()
}

// end ends the work for good; wait waits for the goroutine.
func (w *worker) end() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.stopped = true
	if w.cancel != nil {
		w.cancel()
	}
}

// wait returns when the goroutine has ended, which is soon after end was
// called.
func (w *worker) wait() {
	w.mu.Lock()
	ended := w.ended
	w.mu.Unlock()
	if ended != nil {
		<-ended
	}
}

// protect calls f. If f panics, it logs the panic with its stack and returns
// it as an error.
func protect(log hclog.Logger, name string, f func()) (err error) {
	defer func() {
		if cause := recover(); cause != nil {
			err = fmt.Errorf("internal error: %s panicked: %v", name, cause)
			log.Error("panic recovered", "in", name, "error", fmt.Sprint(cause), "stack", string(debug.Stack()))
		}
	}()
	f()
	return nil
}
