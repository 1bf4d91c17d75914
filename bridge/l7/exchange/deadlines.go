package exchange

import (
	"sync"
	"sync/atomic"
	"time"
)

// The deadlines of an exchange share one timer, which is set to the next of them.
type deadlines struct {
	x      *Exchange
	expire func() // expired, made once

	mu      sync.Mutex  // held by the timer
	timer   *time.Timer // reused
	inUse   bool        // it was set for this exchange
	armed   bool        // and is set, or has fired
	fired   bool        // it has fired
	pending bool        // it may still fire after stop
	head    time.Time   // for the response's head; zero: none
	try     time.Time   // for the head in the present try; zero: none
	total   time.Time   // for the whole exchange; zero: none
	byCall  bool        // total is the deadline of a gRPC call

	byDefault bool // head is Shared.ResponseTimeout

	// clientSlow: when total had passed, the response was being written to the client,
	// not awaited from the upstream. Set before the canceller fails.
	clientSlow atomic.Bool
}

func (d *deadlines) init(x *Exchange) { d.x, d.expire = x, d.expired }

func (d *deadlines) reset() {
	d.inUse, d.armed, d.fired, d.byCall, d.byDefault = false, false, false, false, false
	d.head, d.try, d.total = time.Time{}, time.Time{}, time.Time{}
	d.clientSlow.Store(false)
}

// start bounds the wait for the response's head, and the whole exchange; 0: head is
// the default, and the whole exchange is not bounded.
func (d *deadlines) start(head, total time.Duration) {
	d.byDefault = head <= 0
	if d.byDefault && !d.x.GRPC {
		head = d.x.shared.responseTimeout()
	}
	if head <= 0 && total <= 0 {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if head > 0 {
		d.head = d.x.Start.Add(head)
	}
	if total > 0 {
		d.total = d.x.Start.Add(total)
	}
	d.set()
}

// set sets the timer to the next deadline. d.mu is held.
func (d *deadlines) set() {
	var next time.Time
	for _, t := range [...]time.Time{d.head, d.total, d.try} {
		if !t.IsZero() && (next.IsZero() || t.Before(next)) {
			next = t
		}
	}
	if next.IsZero() {
		return
	}
	d.inUse = true
	wait := time.Until(next)
	if d.timer == nil {
		d.timer = time.AfterFunc(wait, d.expire)
	} else if !d.timer.Reset(wait) && d.armed {
		d.fired = true // or is about to
	}
	d.armed = true
}

// hasTime reports whether there is time for another try after a pause.
func (d *deadlines) hasTime(pause time.Duration) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	then := time.Now().Add(pause)
	return (d.head.IsZero() || then.Before(d.head)) && (d.total.IsZero() || then.Before(d.total))
}

// startTry bounds the wait for the response's head in a try.
func (d *deadlines) startTry(limit time.Duration) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.try = time.Now().Add(limit)
	d.set()
}

// restartTry begins the time of a try again: all of the request has arrived.
func (d *deadlines) restartTry() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.try.IsZero() {
		d.try = time.Now().Add(d.x.try.retry.PerTry) // the timer finds it when it fires
	}
}

// endTry ends the time of a try.
func (d *deadlines) endTry() {
	d.mu.Lock()
	d.try = time.Time{}
	d.mu.Unlock()
}

// responseStarted is called when the response's head arrives: from then on only the
// total time is bounded.
func (d *deadlines) responseStarted() {
	if d.total.IsZero() {
		d.stop()
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.head = time.Time{}
	d.set()
}

// stop disables the timer: the front's next work is not part of this exchange.
func (d *deadlines) stop() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.inUse {
		return
	}
	d.inUse = false
	d.head, d.total, d.try = time.Time{}, time.Time{}, time.Time{}
	if !d.timer.Stop() || d.fired {
		d.pending = true
	}
}

// expired is called by the timer.
func (d *deadlines) expired() {
	defer d.x.guard()
	d.mu.Lock()
	defer d.mu.Unlock()
	d.fired = true
	x, now := d.x, time.Now()
	passed := func(t time.Time) bool { return !t.IsZero() && !now.Before(t) }
	started := x.cancel.started()
	if started {
		d.head, d.try = time.Time{}, time.Time{}
	}
	switch {
	case passed(d.total):
		cause := errTooLong
		if d.byCall {
			cause = errCallDeadline
		}
		d.clientSlow.Store(started && !x.stall.waits())
		x.cancel.fail(cause)
		if started && !x.tellDeadline() {
			x.front.Abort(cause) // the client may be the slow side
		}
		return
	case passed(d.head) && d.byDefault && d.postpone(now):
	case passed(d.head):
		x.cancel.fail(errDeadline)
		return
	case passed(d.try) && x.upload.replay.waitsForClient():
		d.try = now.Add(x.try.retry.PerTry)
	case passed(d.try):
		d.try = time.Time{}
		x.cancel.failTry()
	}
	d.set()
}

// postpone puts off the default deadline, and reports true, if its time runs from
// later than the beginning of the request. d.mu is held.
func (d *deadlines) postpone(now time.Time) bool {
	u, limit := &d.x.upload, d.x.shared.responseTimeout()
	if !u.sent.Load() {
		d.head = now.Add(limit / 32) // it runs from when the request is sent
		return true
	}
	left := limit - time.Duration(d.x.shared.Clock.Now()-u.sentAt.Load())
	if left > 0 {
		d.head = now.Add(left)
	}
	return left > 0
}
