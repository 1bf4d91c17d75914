package exchange

import (
	"errors"
	"io"
	"sync"
	"sync/atomic"

	"github.com/drawbridge-gateway/drawbridge/bridge/l7/message"
	"github.com/drawbridge-gateway/drawbridge/bridge/socket"
	"github.com/drawbridge-gateway/drawbridge/certs"
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

	// parked is set while the upload waits for the client without a goroutine, and
	// blocked while it waits for its upstream: see park and block.
	parked struct {
		back   message.Back
		number int
	}
	blocked    blockedUpload
	onReadable func() // the method value resume
	onRoom     func() // the method value resumeBlocked

	expect expectation

	touched atomic.Bool  // some of the body was taken from the front
	read    atomic.Bool  // all of the body was read from the front
	refused atomic.Bool  // the rest of the body was refused
	sent    atomic.Bool  // all of the request was sent upstream
	sentAt  atomic.Int64 // when sent was set, by the listener's clock
}

// A blockedUpload is an upload that waits for room toward its back without a goroutine.
type blockedUpload struct {
	back   message.Back
	number int
	rest   []byte // to send when there is room
	end    bool   // only the end is left to send
	unkept []byte // the part that rest belongs to, if it is not kept: see replay.read
}

func (u *upload) init(x *Exchange) {
	u.x, u.onReadable, u.onRoom = x, u.resume, u.resumeBlocked
	u.expect.init(u)
}

func (u *upload) reset() {
	u.replay, u.started = nil, false
	u.parked.back = nil
	u.blocked = blockedUpload{}
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
	waits := u.expect.begin()
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
	u.sending.Add(1)
	if !waits && isSmall && hasRoom(b) {
		// carry does not park, because all of the body has arrived. But there may be no
		// room for the end of the request.
		if u.carry(b, number, atStart) {
			u.started = true
		} else {
			u.sending.Done()
		}
		return nil
	}
	if waits {
		if err := b.Flush(); err != nil {
			u.sending.Done()
			return unlessAnswered(err)
		}
	}
	if u.replay == nil {
		u.touched.Store(true) // from here on the body cannot be sent from its beginning
	}
	u.started = true
	switch {
	case waits:
		u.expect.wait(b, number)
	case hasRoom(b) && u.parkAtOnce(b, number):
	default:
		go u.sendInBackground(b, number)
	}
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
	parked = u.carry(u.parked.back, u.parked.number, afterClient)
}

// block ends the upload's goroutine while it waits for room, if its back allows it:
// resumeBlocked continues the upload. If block returns true, the caller must no longer
// use the upload.
func (u *upload) block(k blockedUpload) bool {
	a, ok := k.back.(roomAwaiter)
	if !ok {
		return false
	}
	u.blocked = k
	return a.AwaitRoom(k.end, u.onRoom)
}

// resumeBlocked continues a blocked upload when there is room.
func (u *upload) resumeBlocked() {
	parked := false
	defer func() {
		if !parked {
			u.sending.Done()
		}
	}()
	defer u.x.guard()
	parked = u.carry(u.blocked.back, u.blocked.number, afterRoom)
}

// tryWrite sends p to b. If b can announce when it has room again, tryWrite does not
// wait: it sends what b accepts now, and returns the rest.
func tryWrite(b message.Back, p []byte) (rest []byte, err error) {
	if a, ok := b.(roomAwaiter); ok {
		n, err := a.TryWrite(p)
		return p[n:], err
	}
	return nil, b.Write(p)
}

// tryFlush sends what b holds. If b can announce when it has room again, tryFlush does
// not wait: it sends what b accepts now. It reports whether everything was sent.
func tryFlush(b message.Back) (done bool, err error) {
	if a, ok := b.(roomAwaiter); ok {
		return a.TryFlush()
	}
	return true, b.Flush()
}

// unlessAnswered returns the error of a request that could not be written. It returns
// nil if the upstream may have answered before it closed the connection, because then
// the answer says why. Two kinds of errors are always returned: the back cannot express
// the request, or the upstream has not processed it.
func unlessAnswered(err error) error {
	if unwritable(err) || errors.Is(err, message.ErrUnprocessed) {
		return err
	}
	return nil // receive returns the error
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

// sendInBackground sends the body while another goroutine reads the response.
func (u *upload) sendInBackground(b message.Back, number int) {
	parked := false
	defer func() {
		if !parked {
			u.sending.Done()
		}
	}()
	defer u.x.guard()
	parked = u.carry(b, number, atStart)
}

// A beginning says where an upload begins, or continues.
type beginning int

const (
	atStart     beginning = iota
	afterClient           // it was parked, and more of the body can be read
	afterRoom             // it was blocked, and there is room
)

// carry carries the body. It reports true if the upload is parked or blocked.
func (u *upload) carry(b message.Back, number int, from beginning) (parked bool) {
	for u.replay != nil && (from != afterRoom || u.replay.isBlocked()) {
		switch u.replay.upload(b, number, from) {
		case uploadEnded:
			return false
		case uploadBlocked:
			return true
		case uploadWaits:
			if u.park(b, number) {
				return true
			}
			from = afterClient // the front can be read without waiting
			continue
		}
		return u.carryRest(b, number, atStart)
	}
	return u.carryRest(b, number, from)
}

// carryRest carries the part of the body that is not kept for resending.
func (u *upload) carryRest(b message.Back, number int, from beginning) (parked bool) {
	x := u.x
	f := flowBetween(x.front, b)
	f.Begin()
	defer f.End()
	if from == afterRoom {
		rest, end := u.blocked.rest, u.blocked.end
		u.blocked = blockedUpload{}
		if end {
			u.end(b, x.Rules.Protected.CleanTrailer(x.front.Trailer()))
			return false
		}
		if blocked, err := u.write(b, number, rest); blocked || err != nil {
			return blocked
		}
	}
	for {
		if !x.front.Buffered() {
			if blocked, err := u.flush(b, number); blocked || err != nil {
				return blocked
			}
			if u.park(b, number) {
				return true
			}
		}
		p, err := x.front.Read()
		switch {
		case err == io.EOF:
			u.read.Store(true)
			if u.block(blockedUpload{back: b, number: number, end: true}) {
				return true
			}
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
		if blocked, err := u.write(b, number, p); blocked || err != nil {
			return blocked
		}
	}
}

// flush sends what b holds. It is like write.
func (u *upload) flush(b message.Back, number int) (blocked bool, err error) {
	for {
		done, err := tryFlush(b)
		if err != nil {
			u.giveUp(err)
		}
		if done || err != nil {
			return false, err
		}
		if u.block(blockedUpload{back: b, number: number}) {
			return true, nil
		}
	}
}

// write sends p, which is not kept. It reports true if the upload is blocked and
// resumeBlocked sends the rest. If it fails, the upstream accepts no more bytes. Reading
// the response returns its answer, or the reason why it has none.
func (u *upload) write(b message.Back, number int, p []byte) (blocked bool, err error) {
	for {
		if p, err = tryWrite(b, p); err != nil {
			u.giveUp(err)
			return false, err
		}
		if len(p) == 0 {
			return false, nil
		}
		if u.block(blockedUpload{back: b, number: number, rest: p}) {
			return true, nil
		}
	}
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
		u.expect.release()
		u.sending.Wait()
	}
}
