package exchange

import (
	"sync"
	"sync/atomic"
	"time"
)

// The deadlines of an exchange share one timer, which fires at the next deadline or
// earlier. The timer is not stopped at the end of the exchange, because most requests
// end long before their deadlines, and the next exchange can use it. If it fires too
// early, it is set again.
type deadlines struct {
	x      *Exchange
	expire func() // the method value expired

	mu     sync.Mutex  // held by the timer
	timer  *time.Timer // reused
	fires  time.Time   // when the timer fires; zero: the timer is not set
	head   time.Time   // deadline of the response's head, or zero
	try    time.Time   // deadline of the head in the present try, or zero
	total  time.Time   // deadline of the whole exchange, or zero
	byCall bool        // total is the deadline of a gRPC call

	byDefault bool // head comes from Shared.ResponseTimeout
	extended  bool // total has passed, and was moved by maxHeadDelay

	// clientSlow says that when total passed, the gateway was writing the response to
	// the client, not waiting for the upstream. It is set before the canceller fails.
	clientSlow atomic.Bool
}

func (d *deadlines) init(x *Exchange) { d.x, d.expire = x, d.expired }

func (d *deadlines) reset() {
	d.byCall, d.byDefault, d.extended = false, false, false // stop has reset the other fields
	d.clientSlow.Store(false)
}

// start bounds the wait for the response's head, and the whole exchange. 0 means
// the default for head, and no bound for total.
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

// maxHeadDelay bounds how long sending a response's head may take after total has passed.
const maxHeadDelay = time.Second

// maxSet bounds how long the timer is set for: while it is set, it keeps the
// exchange in memory.
const maxSet = 10 * time.Second

// next returns the next deadline, or zero. d.mu is held.
func (d *deadlines) next() (next time.Time) {
	for _, t := range [...]time.Time{d.head, d.total, d.try} {
		if !t.IsZero() && (next.IsZero() || t.Before(next)) {
			next = t
		}
	}
	return next
}

// set makes the timer fire by the next deadline. d.mu is held.
func (d *deadlines) set() {
	next := d.next()
	if next.IsZero() || !d.fires.IsZero() && !next.Before(d.fires) {
		return
	}
	now := time.Now()
	wait := min(next.Sub(now), maxSet)
	d.fires = now.Add(wait)
	if d.timer == nil {
		d.timer = time.AfterFunc(wait, d.expire)
	} else {
		d.timer.Reset(wait)
	}
}

// hasTime reports whether there is time for another try after a pause.
func (d *deadlines) hasTime(pause time.Duration) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	then := time.Now().Add(pause)
	return (d.head.IsZero() || then.Before(d.head)) && (d.total.IsZero() || then.Before(d.total))
}

// checkCall ends the exchange if the deadline of its gRPC call has passed. It is called when
// the upstream resets the call: an upstream that enforces the deadline may do so before the
// timer fires here.
func (d *deadlines) checkCall() {
	d.mu.Lock()
	passed := d.byCall && !d.total.IsZero() && !time.Now().Before(d.total)
	d.mu.Unlock()
	if passed {
		d.x.cancel.fail(errCallDeadline)
	}
}

// startTry bounds the wait for the response's head in a try.
func (d *deadlines) startTry(limit time.Duration) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.try = time.Now().Add(limit)
	d.set()
}

// restartTry restarts the time limit of a try when all of the request has
// arrived.
func (d *deadlines) restartTry() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.try.IsZero() {
		d.try = time.Now().Add(d.x.try.retry.PerTry) // the timer reads the new deadline when it fires
	}
}

// endTry removes the deadline of a try.
func (d *deadlines) endTry() {
	d.mu.Lock()
	d.try = time.Time{}
	d.mu.Unlock()
}

// responseStarted is called when the response's head arrives: from then on only the
// total time is bounded.
func (d *deadlines) responseStarted() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.head, d.try = time.Time{}, time.Time{}
	d.set()
}

// stop removes all deadlines: what the front does next is not part of this
// exchange.
func (d *deadlines) stop() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.head, d.total, d.try = time.Time{}, time.Time{}, time.Time{}
}

// expired is called by the timer. Without deadlines, the exchange may have ended and
// must not be touched.
func (d *deadlines) expired() {
	defer d.x.guard()
	d.mu.Lock()
	defer d.mu.Unlock()
	d.fires = time.Time{}
	if d.next().IsZero() {
		return
	}
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
		responded := x.responded.Load()
		switch {
		case !started || x.endAtDeadline():
			return
		case !responded && !d.extended:
			// The response's head is being sent. After that the exchange itself ends the
			// response, unless the client is slow.
			d.total, d.extended = now.Add(maxHeadDelay), true
		default:
			x.front.Abort(cause) // the client may be the slow side
			return
		}
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

// postpone moves the default deadline, and reports true, if the time limit starts
// later than the request. d.mu is held.
func (d *deadlines) postpone(now time.Time) bool {
	u, limit := &d.x.upload, d.x.shared.responseTimeout()
	if !u.sent.Load() {
		d.head = now.Add(limit / 32) // the limit starts when the request was sent
		return true
	}
	left := limit - time.Duration(d.x.shared.Clock.Now()-u.sentAt.Load())
	if left > 0 {
		d.head = now.Add(left)
	}
	return left > 0
}
