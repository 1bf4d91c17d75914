package exchange

import (
	"errors"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"github.com/drawbridge-gateway/drawbridge/bridge/l7/message"
	"github.com/drawbridge-gateway/drawbridge/bridge/socket"
	"github.com/drawbridge-gateway/drawbridge/certs"
)

const (
	// continueTime is how long an upstream may take to say whether it wants the
	// body of a request whose client waits for 100 (Continue).
	continueTime = time.Second

	// continueLook is how often the upload meanwhile checks whether the client has
	// sent its body.
	continueLook = 20 * time.Millisecond
)

// maxInline is the maximum size of a body that the goroutine sends before it
// reads the response. A fresh socket accepts that much without blocking.
const maxInline = 8 << 10

// MaxInline is maxInline, for fronts: see wholeReader.
const MaxInline = maxInline

// errBodyTooLarge ends an exchange whose request's body exceeds Rules.MaxBody.
var errBodyTooLarge = errors.New("the body exceeds the listener's limit")

// errUnread ends an exchange whose upstream neither reads the request nor answers.
var errUnread = &certs.VerifyError{Reason: certs.ReasonResponseTimeout, Detail: "the upstream neither read the request nor sent a response in time"}

// A bodyError ends an exchange whose request body is incomplete.
type bodyError struct{ err error }

func (e *bodyError) Error() string { return "the request's body: " + e.err.Error() }
func (e *bodyError) Unwrap() error { return e.err }

// An upload carries the body of a request to the upstream.
type upload struct {
	x       *Exchange
	replay  *replay        // keeps the body for resending; nil: no body, or it cannot be kept
	sending sync.WaitGroup // waits for the goroutines that send the body, one after another
	started bool           // a goroutine was started, or the upload is parked

	// parked is the state of an upload that waits for the client without a
	// goroutine: see park.
	parked struct {
		back   message.Back
		number int
	}
	onReadable func() // the method value resume

	proceed  chan struct{} // closed when the body may be sent; nil: it may be sent at once
	released bool          // proceed is closed

	touched atomic.Bool  // some of the body was taken from the front
	read    atomic.Bool  // all of the body was read from the front
	refused atomic.Bool  // the rest of the body was refused
	sent    atomic.Bool  // all of the request was sent upstream
	sentAt  atomic.Int64 // when sent was set, by the listener's clock
}

func (u *upload) init(x *Exchange) { u.x, u.onReadable = x, u.resume }

func (u *upload) reset() {
	u.replay, u.started, u.proceed, u.released = nil, false, nil, false
	u.parked.back = nil
	u.touched.Store(false)
	u.read.Store(false)
	u.refused.Store(false)
	u.sent.Store(false)
}

// send sends the request to b, or begins to send it.
func (u *upload) send(b message.Back) error {
	x := u.x
	if err := x.cancel.attach(b); err != nil {
		return err
	}
	r := x.Facts.Request
	u.sent.Store(false)
	u.awaitContinue()
	if !r.HasBody() {
		u.read.Store(true)
		if err := b.Send(r, true); err != nil {
			return unlessAnswered(err)
		}
		u.complete()
		return nil
	}
	if err := b.Send(r, false); err != nil {
		return unlessAnswered(err)
	}
	if u.replay == nil && !u.touched.Load() && reportsRefusals(b) {
		u.replay = u.newReplay()
	}
	number, isSmall := u.begin()
	if u.proceed == nil && isSmall && hasRoom(b) {
		u.carry(b, number, false) // carry does not park, because all of the body has arrived
		return nil
	}
	if u.proceed != nil {
		if err := b.Flush(); err != nil {
			return unlessAnswered(err)
		}
	}
	if u.replay == nil {
		u.touched.Store(true) // from here on the body cannot be sent from its beginning
	}
	u.started = true
	u.sending.Add(1)
	if u.proceed == nil && hasRoom(b) && u.parkAtOnce(b, number) {
		return nil
	}
	go u.sendInBackground(b, number, u.proceed)
	return nil
}

// parkAtOnce starts an upload like sendInBackground, but without a goroutine, if no
// byte of the body has arrived. It reports whether it did.
func (u *upload) parkAtOnce(b message.Back, number int) bool {
	if number > 1 || u.x.front.Buffered() {
		return false
	}
	if err := b.Flush(); err != nil {
		return false
	}
	if u.replay != nil {
		u.replay.setReading(true)
	}
	if u.park(b, number) {
		return true
	}
	if u.replay != nil {
		u.replay.setReading(false)
	}
	return false
}

// park lets the upload wait for the client without a goroutine, if the front allows
// that; resume then continues the upload. If park returns true, the caller must no
// longer use the upload.
func (u *upload) park(b message.Back, number int) bool {
	f, ok := u.x.front.(bodyAwaiter)
	if !ok {
		return false
	}
	u.parked.back, u.parked.number = b, number
	return f.AwaitBody(u.onReadable)
}

// resume continues a parked upload when more of the body can be read.
func (u *upload) resume() {
	parked := false
	defer func() {
		if !parked {
			u.sending.Done()
		}
	}()
	defer u.x.guard()
	parked = u.carry(u.parked.back, u.parked.number, true)
}

// unlessAnswered returns the error of a request that could not be written. It
// returns nil if the upstream may have answered before it closed the connection,
// because then the answer says why. It always returns an error that says that the
// back cannot express the request, or that the upstream has not processed it.
func unlessAnswered(err error) error {
	if unwritable(err) || errors.Is(err, message.ErrUnprocessed) {
		return err
	}
	return nil // receive returns the error
}

// awaitContinue delays the body until the upstream wants it, if the client waits for a
// 100 (Continue). Once the client has received the 100, awaitContinue does not wait.
func (u *upload) awaitContinue() {
	x := u.x
	if !x.ExpectsContinue {
		return
	}
	x.cancel.mu.Lock()
	continued := x.cancel.continued
	x.cancel.mu.Unlock()
	u.proceed, u.released = nil, false
	if continued {
		x.Facts.Request.Fields.Remove("Expect")
	} else {
		u.proceed = make(chan struct{})
	}
}

// release starts a body that waits for the upstream's 100 (Continue) or response.
func (u *upload) release() {
	if u.proceed != nil && !u.released {
		u.released = true
		close(u.proceed)
	}
}

// begin begins to send the body. number is not 0 if the body can be sent again.
// isSmall reports that neither reading the body nor writing it to a connection with
// room takes long.
func (u *upload) begin() (number int, isSmall bool) {
	if u.replay == nil || u.replay.uploads == 0 {
		f, ok := u.x.front.(wholeReader)
		isSmall = ok && f.Whole()
	}
	if u.replay != nil {
		var kept bool
		number, kept = u.replay.begin()
		isSmall = isSmall || kept
	}
	return number, isSmall
}

// sendInBackground sends the body while another goroutine reads the response, once the
// upstream wants it: when proceed is closed, or at once if proceed is nil.
func (u *upload) sendInBackground(b message.Back, number int, proceed <-chan struct{}) {
	parked := false
	defer func() {
		if !parked {
			u.sending.Done()
		}
	}()
	defer u.x.guard()
	if proceed == nil || u.mayStart(number, proceed) {
		parked = u.carry(b, number, false)
	}
}

// mayStart waits until the upstream wants the body. It reports false if the final
// response arrived first, or the try ended.
func (u *upload) mayStart(number int, proceed <-chan struct{}) (may bool) {
	u.await(proceed)
	if r := u.replay; r != nil {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.use(number, func() { may = u.sendContinue() })
		return may
	}
	return u.sendContinue()
}

// await waits until proceed is closed, continueTime has passed, or the client sends
// its body without waiting.
func (u *upload) await(proceed <-chan struct{}) {
	ticker := time.NewTicker(continueLook)
	defer ticker.Stop()
	for looks := 0; looks < int(continueTime/continueLook); looks++ {
		if u.arrives() {
			return
		}
		select {
		case <-proceed:
			return
		case <-ticker.C:
		}
	}
}

// arrives reports whether the client sends its body although it announced that
// it would wait. Such a client needs no 100 (Continue) (RFC 9110, section
// 10.1.1).
func (u *upload) arrives() bool {
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

// carry carries the body. It reports true if it has parked the upload. resumed says
// that it continues a parked upload.
func (u *upload) carry(b message.Back, number int, resumed bool) (parked bool) {
	for u.replay != nil {
		switch u.replay.upload(b, number, resumed) {
		case uploadEnded:
			return false
		case uploadWaits:
			if u.park(b, number) {
				return true
			}
			resumed = true // the front can be read without waiting
			continue
		}
		break
	}
	return u.carryRest(b, number)
}

// carryRest carries the part of the body that is not kept for resending.
func (u *upload) carryRest(b message.Back, number int) (parked bool) {
	x := u.x
	f := flowBetween(x.front, b)
	f.Begin()
	defer f.End()
	for {
		if !x.front.Buffered() {
			if err := b.Flush(); err != nil {
				u.giveUp(err)
				break
			}
			if u.park(b, number) {
				return true
			}
		}
		p, err := x.front.Read()
		switch {
		case err == io.EOF:
			u.read.Store(true)
			u.end(b, x.Rules.Protected.CleanTrailer(x.front.Trailer()))
			return false
		case err != nil && u.refused.Load():
			return false
		case err != nil:
			x.cancel.fail(&bodyError{err})
			return false
		}
		u.touched.Store(true)
		if u.exceeds(len(p)) {
			x.cancel.fail(&bodyError{errBodyTooLarge})
			return false
		}
		if err := b.Write(p); err != nil {
			u.giveUp(err)
			break
		}
	}
	// The upstream accepts no more bytes. Reading the response returns its answer,
	// or the reason why it has none.
	return false
}

// end completes the request.
func (u *upload) end(b message.Back, trailer message.Fields) {
	if err := b.End(trailer); err != nil {
		u.giveUp(err)
		return
	}
	u.complete()
}

// complete records that all of the request was sent.
func (u *upload) complete() {
	u.sentAt.Store(u.x.shared.Clock.Now())
	u.sent.Store(true)
}

// giveUp is called when the upstream stops reading the body. If the upstream also
// has not answered, and read nothing for too long, waiting longer is useless.
func (u *upload) giveUp(err error) {
	if errors.Is(err, socket.ErrStuck) && !u.x.cancel.started() {
		u.x.cancel.fail(errUnread)
	}
}

// exceeds counts n more bytes of the body, and reports whether the body exceeds its
// limit.
func (u *upload) exceeds(n int) bool {
	x := u.x
	x.Log.FromClient += uint64(n)
	return x.Rules.MaxBody > 0 && x.Log.FromClient > uint64(x.Rules.MaxBody)
}

// isSpent reports whether the request can no longer be sent from its beginning.
func (u *upload) isSpent() bool {
	if u.replay != nil {
		return !u.replay.whole()
	}
	return u.touched.Load()
}

// refuse ends the reading of the body and drops the rest.
func (u *upload) refuse() {
	u.refused.Store(true)
	u.x.front.Refuse()
}

// stop ends uploads that may still wait for the client.
func (u *upload) stop() {
	if u.replay != nil && u.started {
		u.refuse()
		u.release()
		u.sending.Wait()
	}
}
