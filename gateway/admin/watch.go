package admin

import (
	"context"
	"errors"
	"sync"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/drawbridge-gateway/drawbridge/gateway/history"
)

// A timedSend calls send. If the call takes longer than the send timeout because the
// client does not read, the stream ends.
type timedSend func(send func() error) error

// withSendTimeout calls run in its own goroutine, because a Send blocks while the client
// does not read. It returns when run has returned, when the stream has ended, or when
// the client did not read a message in time.
func (s *Server) withSendTimeout(ctx context.Context, method string, run func(timedSend) error) error {
	stalled := make(chan struct{})
	stall := sync.OnceFunc(func() { close(stalled) })
	done := make(chan error, 1)
	// When withSendTimeout returns, the stream ends and the goroutine's Send fails.
	s.streams.Go(func() {
		done <- s.recovered(method, func() error {
			return run(func(send func() error) error {
				timer := time.AfterFunc(s.sendTimeout, stall)
				defer timer.Stop()
				return send()
			})
		})
	})
	select {
	case err := <-done:
		return err
	case <-stalled:
		return errTooSlow()
	case <-ctx.Done():
		return ctx.Err()
	}
}

// follow calls send with each value after a position. after returns values like
// history.Log.After, and send returns the position of its value. follow returns when
// the context ends, a call fails, or the client was so slow that the next value is
// no longer stored.
func follow[T any](s *Server, ctx context.Context, position int64, after func(int64) ([]T, <-chan struct{}, error), send func(T) (int64, error)) error {
	for {
		values, changed, err := after(position)
		switch {
		case errors.Is(err, history.ErrBehind):
			return errTooSlow()
		case errors.Is(err, history.ErrClosed):
			return errStopping()
		case err != nil:
			return err
		}
		for _, v := range values {
			if position, err = send(v); err != nil {
				return err
			}
		}
		if changed == nil {
			continue
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		case <-s.stopping:
			return errStopping()
		}
	}
}

func errTooSlow() error {
	return statusWith(codes.ResourceExhausted, "WATCH_TOO_SLOW", "the client read too slowly: call again; a watch can resume where it ended").Err()
}

// maxStreamsPerCaller bounds how many streams a caller may have at once.
const maxStreamsPerCaller = 64

// streamCounts counts the streams of each caller. The zero value is ready.
type streamCounts struct {
	mu sync.Mutex
	by map[string]int
}

// enter counts a stream of a caller. It returns false if the caller is at its limit. If
// it returns true, leave must be called once the stream has ended.
func (c *streamCounts) enter(caller string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.by == nil {
		c.by = map[string]int{}
	}
	if c.by[caller] >= maxStreamsPerCaller {
		return false
	}
	c.by[caller]++
	return true
}

func (c *streamCounts) leave(caller string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.by[caller]--; c.by[caller] == 0 {
		delete(c.by, caller)
	}
}
