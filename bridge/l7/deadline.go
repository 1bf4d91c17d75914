package l7

import "time"

// The deadlines of an exchange share a timer, which is set to the next of them.

// defaultTimeout is how long the response's head may take, without a timeout of the
// route's, once all of the request was sent. Calls of gRPC have none: a stream may
// begin with its first message, whenever that is, and their clients set deadlines.
const defaultTimeout = 5 * time.Minute

// startTimer bounds the wait for the response's head, and for all of it; 0: head is
// the default, and all of it is not bounded.
func (x *exchange) startTimer(head, total time.Duration) {
	x.byDefault = head <= 0
	if x.byDefault && !x.grpc {
		head = x.server.responseTimeout
	}
	if head <= 0 && total <= 0 {
		return
	}
	x.timing.Lock()
	defer x.timing.Unlock()
	if head > 0 {
		x.deadline = x.start.Add(head)
	}
	if total > 0 {
		x.last = x.start.Add(total)
	}
	x.setTimer()
}

// setTimer sets the timer to the next deadline. x.timing is held.
func (x *exchange) setTimer() {
	var next time.Time
	for _, t := range [...]time.Time{x.deadline, x.last, x.tryEnd} {
		if !t.IsZero() && (next.IsZero() || t.Before(next)) {
			next = t
		}
	}
	if next.IsZero() {
		return
	}
	x.ticking = true
	d := time.Until(next)
	if x.timer == nil {
		x.timer = time.AfterFunc(d, x.expire)
	} else if !x.timer.Reset(d) && x.armed {
		x.fired = true // or is about to
	}
	x.armed = true
}

// hasTime reports whether there is time for another try after a pause.
func (x *exchange) hasTime(pause time.Duration) bool {
	x.timing.Lock()
	defer x.timing.Unlock()
	then := time.Now().Add(pause)
	return (x.deadline.IsZero() || then.Before(x.deadline)) && (x.last.IsZero() || then.Before(x.last))
}

// startTry begins a try, with its own deadline if there is one.
func (x *exchange) startTry() {
	x.tries++
	x.exposed = false
	if x.retry == nil || x.retry.PerTry <= 0 {
		return
	}
	x.timing.Lock()
	defer x.timing.Unlock()
	x.tryEnd = time.Now().Add(x.retry.PerTry)
	x.setTimer()
}

// restartTry begins the time of a try again: all of the request has come.
func (x *exchange) restartTry() {
	x.timing.Lock()
	defer x.timing.Unlock()
	if !x.tryEnd.IsZero() {
		x.tryEnd = time.Now().Add(x.retry.PerTry) // the timer finds it when it fires
	}
}

// endTry ends the try that startTry began, and reports whether it ran out of its
// time.
func (x *exchange) endTry() (late bool) {
	if x.retry == nil || x.retry.PerTry <= 0 {
		return false
	}
	x.timing.Lock()
	defer x.timing.Unlock()
	x.tryEnd = time.Time{}
	x.mu.Lock()
	defer x.mu.Unlock()
	late, x.late = x.late, false
	return late
}

// isLate reports whether the present try has run out of its time.
func (x *exchange) isLate() bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.late
}

// timeHeaded is called when the response's head is there, for whose end alone is
// waited from then on.
func (x *exchange) timeHeaded() {
	if x.last.IsZero() {
		x.stopTimer()
		return
	}
	x.timing.Lock()
	defer x.timing.Unlock()
	x.deadline = time.Time{}
	x.setTimer()
}

// stopTimer sees to it that the timer does nothing from now on: what the front
// does next is no part of this exchange.
func (x *exchange) stopTimer() {
	x.timing.Lock()
	defer x.timing.Unlock()
	if !x.ticking {
		return
	}
	x.ticking = false
	x.deadline, x.last, x.tryEnd = time.Time{}, time.Time{}, time.Time{}
	if !x.timer.Stop() || x.fired {
		x.loose = true
	}
}

// expired is called by the timer.
func (x *exchange) expired() {
	defer x.guard()
	x.timing.Lock()
	defer x.timing.Unlock()
	x.fired = true
	now := time.Now()
	passed := func(t time.Time) bool { return !t.IsZero() && !now.Before(t) }
	x.mu.Lock()
	headed := x.headed
	x.mu.Unlock()
	if headed {
		x.deadline, x.tryEnd = time.Time{}, time.Time{}
	}
	switch {
	case passed(x.last):
		cause := errTooLong
		if x.byCall {
			cause = errCallDeadline
		}
		x.fail(cause)
		if headed && !x.tellDeadline() {
			x.front.Abort(cause) // it may be the client that takes its time
		}
		return
	case passed(x.deadline) && x.byDefault && x.postpone(now):
	case passed(x.deadline):
		x.fail(errDeadline)
		return
	case passed(x.tryEnd) && x.replay.patient():
		x.tryEnd = now.Add(x.retry.PerTry)
	case passed(x.tryEnd):
		x.tryEnd = time.Time{}
		x.failTry()
	}
	x.setTimer()
}

// postpone puts off the default deadline, and reports true, if its time runs from
// later than the beginning of the request. x.timing is held.
func (x *exchange) postpone(now time.Time) bool {
	limit := x.server.responseTimeout
	if !x.sent.Load() {
		x.deadline = now.Add(limit / 32) // it runs from when the request is sent
		return true
	}
	left := limit - time.Duration(x.server.clock.now.Load()-x.sentAt.Load())
	if left > 0 {
		x.deadline = now.Add(left)
	}
	return left > 0
}

// isSent notes that all of the request was sent.
func (x *exchange) isSent() {
	x.sentAt.Store(x.server.clock.now.Load())
	x.sent.Store(true)
}

// failTry ends the present try before its time.
func (x *exchange) failTry() {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.late = true
	if x.cancel != nil {
		x.cancel()
	}
	if x.live != nil {
		x.live.Abort(errTryDeadline)
	}
}
