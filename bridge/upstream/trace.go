package upstream

import (
	"context"
	"time"
)

// A Trace records the dials under its context. Only one goroutine at a time
// may dial under the context, and only that goroutine may read the Trace.
type Trace struct {
	Endpoint *Endpoint // the last endpoint dialed, or nil
	Dials    int       // attempts to connect

	// Total duration of the attempts.
	Connect, Handshake time.Duration

	Queued time.Duration // time spent waiting for room
}

type traceKey struct{}

// WithTrace returns a context whose dials t records.
func WithTrace(ctx context.Context, t *Trace) context.Context {
	return context.WithValue(ctx, traceKey{}, t)
}

// traceOf returns the Trace of a context, or a Trace that is discarded.
func traceOf(ctx context.Context) *Trace {
	if t, ok := ctx.Value(traceKey{}).(*Trace); ok {
		return t
	}
	return new(Trace)
}
