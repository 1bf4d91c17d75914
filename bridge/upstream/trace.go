package upstream

import (
	"context"
	"time"
)

// A Trace notes what is done under its context to connect to endpoints. One
// goroutine at a time may do so, and it alone may read it.
type Trace struct {
	Endpoint *Endpoint // that was dialled last; nil: none was
	Dials    int       // attempts to connect

	// How long the attempts took, all together.
	Connect, Handshake time.Duration

	Queued time.Duration // how long there was waiting for room at endpoints
}

type traceKey struct{}

// WithTrace returns a context under which t notes what is done.
func WithTrace(ctx context.Context, t *Trace) context.Context {
	return context.WithValue(ctx, traceKey{}, t)
}

// traceOf returns the Trace of a context; without one, a Trace that nobody reads.
func traceOf(ctx context.Context) *Trace {
	if t, ok := ctx.Value(traceKey{}).(*Trace); ok {
		return t
	}
	return new(Trace)
}
