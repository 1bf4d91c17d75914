package exchange

import (
	"sync"
	"time"

	"github.com/drawbridge-gateway/drawbridge/bridge/l7/message"
)

const (
	// continueTime is how long an upstream may take to say whether it wants the
	// body of a request whose client waits for 100 (Continue).
	continueTime = time.Second

	// continueLook is how often the expectation meanwhile checks whether the client
	// has sent its body.
	continueLook = 20 * time.Millisecond
)

// An expectation delays an upload until its upstream wants the body, if the client waits
// for 100 (Continue). No goroutine waits meanwhile.
type expectation struct {
	u       *upload
	onTimer func() // the method value look
	expects bool   // the client of the present try waits, or did

	mu     sync.Mutex   // held by look
	back   message.Back // the back of the waiting upload; nil: no upload waits
	number int
	looks  int         // left
	timer  *time.Timer // reused; nil until it is needed
}

func (e *expectation) init(u *upload) { e.u, e.onTimer = u, e.look }

// begin begins a try, and reports whether its body must wait. The body need not
// wait after the client has received 100 (Continue).
func (e *expectation) begin() (waits bool) {
	x := e.u.x
	if !x.ExpectsContinue {
		e.expects = false
		return false
	}
	x.cancel.mu.Lock()
	e.expects = !x.cancel.continued
	x.cancel.mu.Unlock()
	if !e.expects {
		x.Facts.Request.Fields.Remove("Expect")
	}
	return e.expects
}

// wait delays the upload until release, until continueTime has passed, or until the
// client sends its body without waiting.
func (e *expectation) wait(b message.Back, number int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.back, e.number, e.looks = b, number, int(continueTime/continueLook)
	if e.arrives() {
		e.startLocked()
		return
	}
	if e.timer == nil {
		e.timer = time.AfterFunc(continueLook, e.onTimer)
	} else {
		e.timer.Reset(continueLook)
	}
}

// look is called by the timer.
func (e *expectation) look() {
	defer e.u.x.guard()
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.back == nil {
		return // the timer was late
	}
	again := false
	defer func() { // after a panic too: the end of the exchange waits for the upload
		if again {
			e.timer.Reset(continueLook)
		} else {
			e.startLocked()
		}
	}()
	e.looks--
	again = e.looks > 0 && !e.arrives()
}

// release starts an upload that waits: the upstream's 100 (Continue) or its response has
// arrived, or the try has ended.
func (e *expectation) release() {
	if !e.expects {
		return
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.back != nil {
		e.startLocked()
	}
}

func (e *expectation) startLocked() {
	b := e.back
	e.back = nil
	if e.timer != nil {
		e.timer.Stop()
	}
	go e.u.sendExpected(b, e.number)
}

// arrives reports whether the client sends its body although it announced that
// it would wait. Such a client needs no 100 (Continue) (RFC 9110, section
// 10.1.1).
func (e *expectation) arrives() bool {
	u := e.u
	if r := u.replay; r != nil {
		r.mu.Lock()
		defer r.mu.Unlock()
		if r.reading {
			return true
		}
	}
	f, ok := u.x.front.(arrivalChecker)
	came := u.x.front.Buffered() || ok && f.Arrived()
	if came {
		c := &u.x.cancel
		c.mu.Lock()
		c.continued = c.continued || !c.responseStarted && c.cause == nil
		c.mu.Unlock()
	}
	return came
}

// sendExpected sends the body of a client that waited, if it is still wanted.
func (u *upload) sendExpected(b message.Back, number int) {
	parked := false
	defer func() {
		if !parked {
			u.sending.Done()
		}
	}()
	defer u.x.guard()
	if u.mayStart(number) {
		parked = u.carry(b, number, atStart)
	}
}

// mayStart tells the client to send its body. It reports false if the final response
// arrived first, or the try ended.
func (u *upload) mayStart(number int) (may bool) {
	if r := u.replay; r != nil {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.use(number, func() { may = u.sendContinue() })
		return may
	}
	return u.sendContinue()
}

// sendContinue tells the client to send its body, unless it did so before or the
// final response has arrived. It reports whether the body should be read.
func (u *upload) sendContinue() bool {
	c := &u.x.cancel
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.continued && !c.responseStarted && c.cause == nil {
		c.continued = true
		// Inform fails only if the client left. Then reading from the client fails
		// too.
		_ = u.x.front.Inform(&message.Response{Status: 100})
	}
	return c.continued
}
