package upstream

import (
	"context"
	"fmt"
	"runtime/debug"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
)

// A worker runs one goroutine from start to end. It cannot be started again.
//
// A panic must not take the process down, as what workers read comes from peers: it is
// logged, and the work begins anew after a pause.
type worker struct {
	mu      sync.Mutex
	cancel  context.CancelFunc // nil until begin
	ended   chan struct{}      // closed when the goroutine has returned
	stopped bool
}

// begin reports whether the goroutine is to be started now, by run with the context
// that it returns. It is once at most, and never after end.
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

// run has work done by the goroutine until ctx, which begin returned, ends. Work must
// return soon after that.
func (w *worker) run(ctx context.Context, log hclog.Logger, name string, work func(context.Context)) {
	go func() {
		defer close(w.ended)
		pause := backoff{first: time.Second, most: time.Minute}
		for {
			last := ctx.Err() != nil // work is called once more, to clean up
			if err := protect(log, name, func() { work(ctx) }); err == nil || last {
				return
			}
			pause.strike(time.Now())
			select {
			case <-ctx.Done():
			case <-time.After(time.Until(pause.until)):
			}
		}
	}()
}

// end ends the work for good; wait waits for it.
func (w *worker) end() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.stopped = true
	if w.cancel != nil {
		w.cancel()
	}
}

// wait returns when the goroutine has ended, which is soon after end was called.
func (w *worker) wait() {
	w.mu.Lock()
	ended := w.ended
	w.mu.Unlock()
	if ended != nil {
		<-ended
	}
}

// protect calls f. If f panics, protect logs that with the stack and returns it as an
// error.
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
