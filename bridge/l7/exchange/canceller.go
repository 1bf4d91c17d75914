package exchange

import (
	"context"
	"errors"
	"sync"

	"github.com/drawbridge-gateway/drawbridge/bridge/l7/message"
)

// A canceller ends an exchange, or one of its tries, early. Any goroutine may use
// it: the front when the client leaves, a timer, an upload.
type canceller struct {
	parent context.Context

	// The method values fail and context.
	onGone      func(cause error)
	dialContext func() (ctx context.Context, done func())

	mu              sync.Mutex
	live            message.Back       // the back that carries the exchange, or nil
	dial            context.CancelFunc // ends the wait for a connection in progress, or nil
	cause           error              // the error that ended the exchange, or nil
	continued       bool               // 100 (Continue) was sent
	responseStarted bool               // the final response's head has arrived
	tryTimedOut     bool
}

func (c *canceller) init(parent context.Context) {
	c.parent, c.onGone, c.dialContext = parent, c.fail, c.context
}

func (c *canceller) reset() {
	c.live, c.dial, c.cause = nil, nil, nil
	c.continued, c.responseStarted, c.tryTimedOut = false, false, false
}

// fail ends the exchange.
func (c *canceller) fail(cause error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.cause == nil {
		c.cause = cause
	}
	c.stopLocked(cause)
}

// failTry ends the present try.
func (c *canceller) failTry() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.tryTimedOut = true
	c.stopLocked(errTryDeadline)
}

// stopLocked ends the wait or the exchange in progress. c.mu is held.
func (c *canceller) stopLocked(cause error) {
	if c.dial != nil {
		c.dial()
	}
	if c.live != nil {
		c.live.Abort(cause)
	}
}

// reason returns the error that ended the exchange, or nil.
func (c *canceller) reason() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.cause
}

// failed reports whether the exchange was ended.
func (c *canceller) failed() bool { return c.reason() != nil }

// ranOut reports whether the time for the whole exchange ran out.
func (c *canceller) ranOut() bool {
	cause := c.reason()
	return cause == errTooLong || cause == errCallDeadline
}

// upstreamTimeout returns the error of the upstream time limit that ended the
// exchange, or nil.
func (c *canceller) upstreamTimeout() error {
	if cause := c.reason(); errors.Is(cause, errDeadline) || errors.Is(cause, errTooLong) {
		return cause
	}
	return nil
}

// hasTryTimedOut reports whether the present try timed out.
func (c *canceller) hasTryTimedOut() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.tryTimedOut
}

// endTry ends the present try, and reports whether it timed out.
func (c *canceller) endTry() (timedOut bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	timedOut, c.tryTimedOut = c.tryTimedOut, false
	return timedOut
}

// start records that the final response's head arrived.
func (c *canceller) start() {
	c.mu.Lock()
	c.responseStarted = true
	c.mu.Unlock()
}

// started reports whether the final response's head arrived.
func (c *canceller) started() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.responseStarted
}

// attach makes b the exchange's Back, unless the exchange was ended.
func (c *canceller) attach(b message.Back) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.cause != nil:
		return c.cause
	case c.tryTimedOut:
		return errTryDeadline
	}
	c.live = b
	return nil
}

// detach prevents b from being aborted later.
func (c *canceller) detach() {
	c.mu.Lock()
	c.live = nil
	c.mu.Unlock()
}

// context returns a context for waiting for a connection. It ends when the exchange
// or the try does. The caller must call done.
func (c *canceller) context() (ctx context.Context, done func()) {
	ctx, cancel := context.WithCancel(c.parent)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.dial = cancel
	if c.cause != nil || c.tryTimedOut {
		cancel()
	}
	return ctx, func() {
		c.mu.Lock()
		c.dial = nil
		c.mu.Unlock()
		cancel()
	}
}
