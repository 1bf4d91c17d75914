package l7

import (
	"errors"
	"io"
	"runtime/debug"
	"time"

	"github.com/drawbridge-gateway/drawbridge/bridge/l7/http1"
	"github.com/drawbridge-gateway/drawbridge/bridge/l7/http2"
	"github.com/drawbridge-gateway/drawbridge/bridge/l7/message"
	"github.com/drawbridge-gateway/drawbridge/bridge/l7/policy"
	"github.com/drawbridge-gateway/drawbridge/bridge/l7/wire"
	"github.com/drawbridge-gateway/drawbridge/bridge/socket"
	"github.com/drawbridge-gateway/drawbridge/certs"
)

// continueTime is how long an upstream may take to say whether it wants the
// body of a request whose client waits to be told so.
const continueTime = time.Second

// continueLook is how often it is looked, meanwhile, whether the client waits.
const continueLook = 20 * time.Millisecond

// maxInterims bounds how many interim responses precede a final one.
const maxInterims = 32

// errUnread ends an exchange whose upstream neither reads the request nor answers.
var errUnread = &certs.VerifyError{Reason: certs.ReasonResponseTimeout, Detail: "the upstream took nothing of the request in time, and sent no response"}

// errOver ends what still runs of an exchange whose response is complete.
var errOver = errors.New("the exchange is over")

// send sends the request to b, or begins to.
func (x *exchange) send(b back) error {
	if err := x.attach(b); err != nil {
		return err
	}
	r := x.facts.Request
	x.sent.Store(false)
	x.await()
	if !r.HasBody() {
		x.read.Store(true)
		if err := b.Send(r, true); err != nil {
			return x.orAnswer(b, err)
		}
		x.isSent()
		return nil
	}
	if err := b.Send(r, false); err != nil {
		return x.orAnswer(b, err)
	}
	if x.replay == nil && !x.touched.Load() && disclaims(b) {
		x.replay = x.newReplay()
	}
	number, little := x.begin()
	if x.proceed == nil && little && roomy(b) {
		x.upload(b, number)
		return nil
	}
	if x.proceed != nil {
		if err := b.Flush(); err != nil {
			return x.orAnswer(b, err)
		}
	}
	if x.replay == nil {
		x.touched.Store(true) // from here on nobody can begin the body again
	}
	x.uploading = true
	x.sending.Add(1)
	go x.uploadAside(b, number, x.proceed)
	return nil
}

// await sees to it that the body is not sent before the upstream wants it, if the
// client waits for that. Once that has been told to send it nobody waits.
func (x *exchange) await() {
	if !x.expects {
		return
	}
	x.mu.Lock()
	informed := x.informed
	x.mu.Unlock()
	x.proceed, x.released = nil, false
	if informed {
		x.facts.Request.Fields.Remove("Expect")
	} else {
		x.proceed = make(chan struct{})
	}
}

// begin begins an upload of the body, which has a number if it can be sent again.
// It reports whether neither reading the body nor writing it to a connection with
// room takes long.
func (x *exchange) begin() (number int, little bool) {
	if x.replay == nil || x.replay.uploads == 0 {
		f, ok := x.front.(whole)
		little = ok && f.Whole()
	}
	if x.replay != nil {
		var kept bool
		number, kept = x.replay.begin()
		little = little || kept
	}
	return number, little
}

// uploadAside carries the request's body while the response is read, once the
// upstream wants it: that is when proceed is closed, or it is nil.
func (x *exchange) uploadAside(b back, number int, proceed <-chan struct{}) {
	defer x.sending.Done()
	defer x.guard()
	if proceed == nil || x.mayUpload(number, proceed) {
		x.upload(b, number)
	}
}

// guard is deferred by each goroutine that serves x besides the one that handles it:
// a panic ends the exchange, and nothing else.
func (x *exchange) guard() {
	if p := recover(); p != nil {
		x.server.log.Error("panic while serving a request", "panic", p, "stack", string(debug.Stack()))
		x.replay.fail(errPanic)
		x.fail(errPanic)
		x.front.Abort(errPanic)
	}
}

// orAnswer decides on a request that could not be written: the upstream may
// have answered before it closed the connection, and then its answer says why.
// What could not be written at all is not its affair.
func (x *exchange) orAnswer(b back, err error) error {
	if unwritable(err) || errors.Is(err, http2.ErrUnprocessed) {
		return err
	}
	return nil // receive tells
}

// unwritable reports whether an error says that the back's version of HTTP
// cannot say what the request says, so that nothing of it was sent.
func unwritable(err error) bool {
	var e *http1.WriteError
	return errors.As(err, &e) || errors.Is(err, http2.ErrHeadTooLarge) ||
		errors.Is(err, errNoUpgrade) || errors.Is(err, errNoWebSocket) || errors.Is(err, errHandshake)
}

// A socketReader is a front or back that reads a socket of its own; a socketWriter
// writes to one.
type socketReader interface{ Reader() *wire.Reader }
type socketWriter interface{ Writer() *wire.Writer }

// flowBetween returns the flow from a front to a back, or from a back to a front.
// It is the zero Flow if one of them has no socket of its own.
func flowBetween(from, to any) wire.Flow {
	in, ok1 := from.(socketReader)
	out, ok2 := to.(socketWriter)
	if !ok1 || !ok2 {
		return wire.Flow{}
	}
	return wire.Flow{In: in.Reader(), Out: out.Writer()}
}

// A whole tells that a body need not be waited for.
type whole interface {
	// Whole reports that Read will not wait until it returns io.EOF, and
	// that there is not much to be read.
	Whole() bool
}

// roomy reports whether a little can be written to b without waiting.
func roomy(b back) bool {
	switch b := b.(type) {
	case *conn1:
		return true // which has room for it: nothing else waits to be sent
	case shared:
		return b.Roomy()
	}
	return false
}

// disclaims reports whether an upstream may say of a request on b that it has not
// processed it. Then the request is sent again, so its body has to be kept.
func disclaims(b back) bool {
	_, two := b.(shared)
	return two
}

// mayUpload waits until the upstream wants the body, as the client does. It
// reports false if the final response came first, or the try ended.
func (x *exchange) mayUpload(number int, proceed <-chan struct{}) (may bool) {
	x.awaitWish(proceed)
	if r := x.replay; r != nil {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.use(number, func() { may = x.goAhead() })
		return may
	}
	return x.goAhead()
}

// awaitWish waits until proceed is closed, the upstream has had its time, or the
// client sends its body without being told to.
func (x *exchange) awaitWish(proceed <-chan struct{}) {
	ticker := time.NewTicker(continueLook)
	defer ticker.Stop()
	for looks := 0; looks < int(continueTime/continueLook); looks++ {
		if x.impatient() {
			return
		}
		select {
		case <-proceed:
			return
		case <-ticker.C:
		}
	}
}

// impatient reports whether the client sends its body though it said that it would
// wait. It needs no 100 (Continue) then (RFC 9110, section 10.1.1).
func (x *exchange) impatient() bool {
	if r := x.replay; r != nil {
		r.mu.Lock()
		defer r.mu.Unlock()
		if r.reading {
			return true
		}
	}
	f, ok := x.front.(arriver)
	came := x.front.Buffered() || ok && f.Arrived()
	if came {
		x.mu.Lock()
		x.informed = x.informed || !x.headed && x.cause == nil
		x.mu.Unlock()
	}
	return came
}

// An arriver is a front that has to look whether anything came.
type arriver interface {
	// Arrived reports whether Read would return without waiting, or has at least
	// something to look at. It is called as Buffered is.
	Arrived() bool
}

// goAhead tells the client to send its body, unless it was told, or the final
// response is there. It reports whether it is to be read.
func (x *exchange) goAhead() bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	if !x.informed && !x.headed && x.cause == nil {
		x.informed = true
		// It fails only if the client left: reading from it tells.
		_ = x.front.Inform(&message.Response{Status: 100})
	}
	return x.informed
}

// upload carries the request's body.
func (x *exchange) upload(b back, number int) {
	if x.replay != nil {
		x.replay.upload(b, number)
		return
	}
	f := flowBetween(x.front, b)
	f.Begin()
	defer f.End()
	for {
		if !x.front.Buffered() {
			if err := b.Flush(); err != nil {
				x.notTaken(err)
				break
			}
		}
		p, err := x.front.Read()
		switch {
		case err == io.EOF:
			x.read.Store(true)
			x.endUpload(b, x.protected.CleanTrailer(x.front.Trailer()))
			return
		case err != nil && x.over.Load():
			return // it was refused
		case err != nil:
			x.fail(&bodyError{err})
			return
		}
		x.touched.Store(true)
		if x.tooLong(len(p)) {
			x.fail(&bodyError{errBodyTooLarge})
			return
		}
		if err := b.Write(p); err != nil {
			x.notTaken(err)
			break
		}
	}
	// The upstream takes no more. What it has to say to that comes, or why
	// nothing does, when the response is read.
}

// endUpload completes the request.
func (x *exchange) endUpload(b back, trailer message.Fields) {
	err := b.End(trailer)
	if err != nil {
		x.notTaken(err)
		return
	}
	x.isSent()
}

// notTaken is called when the upstream takes no more of the body. If it has taken
// nothing for too long, and has not answered either, there is nothing to wait for.
func (x *exchange) notTaken(err error) {
	if !errors.Is(err, socket.ErrStuck) {
		return
	}
	x.mu.Lock()
	headed := x.headed
	x.mu.Unlock()
	if !headed {
		x.fail(errUnread)
	}
}

// receive waits for the head of the final response.
func (x *exchange) receive(b back) error {
	for range maxInterims {
		if err := b.Receive(&x.response); err != nil {
			return err
		}
		x.endpoint.NoteReply()
		if !x.response.Interim() {
			x.noteHead()
			x.judgeHead()
			x.noteLogin(b)
			return nil
		}
		x.interim()
	}
	return errInterims
}

// interim passes on an interim response.
func (x *exchange) interim() {
	if x.response.Status == 100 {
		// To a client that did not ask it would be one too many.
		if x.proceed != nil {
			x.goAhead()
			x.release()
		}
		return
	}
	x.hinted = true
	policy.RemoveHopByHop(&x.response.Fields)
	_ = x.front.Inform(&x.response) // fails only if the client left: so does what follows
}

// head says that the final head is there: the wait for it is over.
func (x *exchange) head() {
	x.mu.Lock()
	x.headed = true
	x.mu.Unlock()
	x.replay.stop()
	x.release()
}

// release lets a body go that waits for the upstream to want it, or to have
// answered.
func (x *exchange) release() {
	if x.proceed != nil && !x.released {
		x.released = true
		close(x.proceed)
	}
}

// relay passes on the final response, of which b has given the head.
func (x *exchange) relay(b back) {
	x.head()
	x.timeHeaded()
	r := &x.response
	if r.Status == 101 {
		x.stopTimer() // it is no response any more
		x.loose = true
		x.tunnel(b)
		return
	}
	if x.key != "" && r.Status < 300 {
		// To who asked with CONNECT it would mean that there is a WebSocket.
		x.drop(b, errUpgrade)
		x.failed(errUpgrade)
		return
	}
	if r.Length > 0 && r.Fields.Has("Trailer") {
		// HTTP/2 may have both; in HTTP/1.1 only a chunked body has trailers.
		r.Length = -1
	}
	r.Upgrade = policy.RequiredUpgrade(r)
	policy.RemoveHopByHop(&r.Fields)
	x.ruleResponse()
	x.dated()
	x.code = r.Status
	x.noteGRPC(r.Fields)
	x.answering.Store(x.grpc && policy.IsGRPC(r.Fields))
	end := r.Length == 0
	if end {
		x.settle(b)
		x.uncount()
	}
	if err := x.front.Respond(r, end); err != nil {
		if !end {
			x.drop(b, err)
		}
		x.abort(err)
		return
	}
	if !end {
		x.download(b)
	}
}

// download carries the response's body.
func (x *exchange) download(b back) {
	defer x.endWatch()
	readErr, err := x.carryBody(b)
	switch {
	case err != nil: // the client's
	case readErr == io.EOF:
		x.complete(b)
		return
	default:
		if err = readErr; x.stall.found.Load() {
			err = errStalled
		}
		if x.judgeBroken(err); err == errStalled || !x.ended() {
			x.logFailure(x.back.options.Upstream.Name(), x.code, err)
			_ = x.front.Flush() // as far as it came
		}
	}
	x.drop(b, err)
	x.abort(err)
}

// carryBody passes on the response's body, until b ends it or the client takes no
// more of it.
func (x *exchange) carryBody(b back) (readErr, writeErr error) {
	f := flowBetween(b, x.front)
	f.Begin()
	defer f.End()
	for {
		waits := !b.Buffered()
		if waits {
			if err := x.front.Flush(); err != nil {
				return nil, err
			}
			x.watch()
		}
		p, err := b.Read()
		if waits {
			x.unwatch()
		}
		if err != nil {
			return err, nil
		}
		if err := x.front.Write(p); err != nil {
			return nil, err
		}
		x.noted.toClient += uint64(len(p))
	}
}

// complete ends the response, of which b has given everything.
func (x *exchange) complete(b back) {
	trailer := b.Trailer()
	trailer.RemoveFunc(func(f message.Field) bool { return policy.IsFraming(f.Name) })
	x.noteGRPC(trailer)
	x.judgeEnd(trailer)
	if !x.read.Load() {
		// The client first, which may send on for a while: its request is not
		// over upstream.
		x.pass.Leave()
		if err := x.front.End(trailer); err != nil {
			x.abort(err)
		}
		x.settle(b)
		return
	}
	if len(trailer) > 0 { // which are b's until Done
		x.uncount()
		if err := x.front.End(trailer); err != nil {
			x.abort(err)
		}
		x.settle(b)
		return
	}
	x.settle(b) // before the client is written to, so that the next request may have it
	x.uncount()
	if err := x.front.End(nil); err != nil {
		x.abort(err)
	}
}

// uncount gives back what the limits of the listener and of the upstream count of
// the exchange. It is called before the client has the end of the response, upon
// which it may send its next request.
func (x *exchange) uncount() {
	x.pass.Leave()
	x.leave()
}

// settle gives b back, whose response was read to its end.
func (x *exchange) settle(b back) {
	if !x.sent.Load() {
		if x.read.Load() {
			// All of the request is on its way, and most likely there.
			stuck := time.AfterFunc(time.Second, func() { x.fail(errOver) })
			x.sending.Wait()
			if !stuck.Stop() {
				x.loose = true
			}
		}
		if !x.sent.Load() {
			x.drop(b, errOver)
			return
		}
	}
	x.sending.Wait()
	x.detach()
	b.Done()
}

// drop ends what is left of the exchange with b.
func (x *exchange) drop(b back, cause error) {
	b.Abort(cause)
	if x.uploading {
		x.over.Store(true)
		x.front.Refuse()
		x.head()
		x.sending.Wait()
	}
	x.detach()
	b.Done()
}
