package exchange

import (
	"cmp"
	"context"
	"errors"
	"io"
	"slices"
	"time"

	"github.com/drawbridge-gateway/drawbridge/bridge/l7/message"
	"github.com/drawbridge-gateway/drawbridge/bridge/l7/wire"
	"github.com/drawbridge-gateway/drawbridge/bridge/upstream"
	"github.com/drawbridge-gateway/drawbridge/certs"
)

// attempts are the tries of an exchange to get a response. One try may dial
// several endpoints.
type attempts struct {
	x        *Exchange
	wait     func() (context.Context, func()) // the method value queue
	upstream Upstream                         // nil: the request is not forwarded
	hash     upstream.Key                     // the key for consistent hashing
	turn     upstream.Turn                    // the request's turn at the upstream
	endpoint *upstream.Endpoint               // the endpoint of the present or last try
	retry    *Retry                           // when to try again; nil: not at all
	avoid    any                              // the connection that refused the request last, or nil
	given    BackInfo                         // how the last connection was obtained

	count            int   // how many tries were begun
	refusals         int   // how often the request was sent elsewhere after its stream was refused
	budgetTaken      bool  // the exchange holds a part of its upstream's retry budget
	maybeSeen        bool  // an endpoint may have seen the present try
	interimForwarded bool  // an interim response was forwarded
	failure          error // the failure of the previous try
}

func (t *attempts) init(x *Exchange) { t.x, t.wait = x, t.queue }

func (t *attempts) reset() { *t = attempts{x: t.x, wait: t.wait} }

// begin begins a try, with its deadline if it has one.
func (t *attempts) begin() {
	t.count++
	t.maybeSeen = false
	if t.retry != nil && t.retry.PerTry > 0 {
		t.x.deadlines.startTry(t.retry.PerTry)
	}
}

// end ends the try, and reports whether the try timed out.
func (t *attempts) end() (timedOut bool) {
	if t.retry == nil || t.retry.PerTry <= 0 {
		return false
	}
	t.x.deadlines.endTry()
	return t.x.cancel.endTry()
}

// leave releases the exchange's place in its upstream, if it has one.
func (t *attempts) leave() {
	t.turn.End()
	t.endRetries()
}

// choose starts a new choice among the upstream's endpoints, in which no endpoint counts
// as tried.
func (t *attempts) choose() {
	t.turn.End()
	t.turn.Begin(t.upstream.Upstream(), t.hash)
	t.turn.Prefer(t.upstream.Preferred())
	if t.x.Facts.Request.Upgrade != "" && !t.upstream.SharesUpgrades() {
		t.turn.Exclusive()
	}
}

// chooseAgain calls choose and returns the first endpoint. It avoids the last endpoint
// if there is another one.
func (t *attempts) chooseAgain() (*upstream.Endpoint, error) {
	last := t.endpoint
	t.choose()
	e, err := t.turn.Next(t.wait)
	if err != nil || e != last {
		return e, err
	}
	if e, err = t.turn.Next(t.wait); err == nil {
		return e, nil
	}
	t.choose()
	return t.turn.Next(t.wait)
}

// walk makes a try: it sends the request to the first endpoint that accepts a
// connection, and returns the Back to read the response from.
func (t *attempts) walk() (message.Back, error) {
	t.begin()
	var err error
	for begun := t.count == 1; ; {
		e, none := t.turn.Next(t.wait)
		if errors.Is(none, upstream.ErrNoEndpoint) && (!begun || isRefusal(err)) {
			// This try and earlier ones have tried all endpoints.
			begun = true
			e, none = t.chooseAgain()
		}
		if none != nil {
			err = cmp.Or(err, t.failure, none) // why the previous endpoint failed, if there was one
			break
		}
		b, failure := t.send(e)
		if failure == nil {
			if !t.end() {
				return b, nil
			}
			t.abandon(b, errTryDeadline)
			return nil, errTryDeadline
		}
		if failure == upstream.ErrFull {
			t.turn.Full()
			continue
		}
		err = failure
		if !isUnsent(err) && !t.resends(err) || t.x.upload.isSpent() || t.x.cancel.failed() || t.x.cancel.hasTryTimedOut() {
			break
		}
	}
	if t.end() {
		return nil, errTryDeadline
	}
	return nil, err
}

const (
	// maxTries bounds how often a request is sent to one endpoint because the
	// connection turned out to be closed.
	maxTries = 3

	// maxLeaving bounds how often a request is sent to one endpoint because the
	// connection accepts no more requests. Many pooled connections may be in this
	// state, because servers limit the requests of a connection.
	maxLeaving = 8

	// maxRefused bounds how often a request is sent elsewhere because a server
	// refused its stream.
	maxRefused = 2
)

// send sends the request to one endpoint, and waits for the response's head. It
// sends the request again, on another connection, if the endpoint cannot have
// processed it, or if the method is idempotent and the connection was closed while
// it was idle.
func (t *attempts) send(e *upstream.Endpoint) (message.Back, error) {
	x := t.x
	t.endpoint, x.Facts.Endpoint = e, e.Address()
	for tries := 1; ; tries++ {
		b, err := t.connect(e, tries >= maxTries)
		if err != nil {
			switch {
			case x.cancel.hasTryTimedOut():
				e.NoteUnanswered(certs.ReasonResponseTimeout, errTryDeadline)
			case !isUnsent(err):
				t.blame(err)
			}
			return nil, err
		}
		t.turn.Connected()
		t.maybeSeen = true
		charge(x.front, b)
		if err = x.upload.send(b); err == nil {
			err = x.receive(b)
		}
		if err == nil {
			e.NoteRequest()
			return b, nil
		}
		if isRefusal(err) {
			t.avoid = t.given.Carrier
		}
		t.abandon(b, err)
		x.deadlines.checkCall()
		switch {
		case x.cancel.failed():
			return nil, err
		case x.cancel.hasTryTimedOut():
			t.blame(errTryDeadline)
			return nil, errTryDeadline
		case unwritable(err):
			return nil, err
		case !x.upload.isSpent() && t.repeatable(err, t.given.Reused, tries):
			continue
		}
		t.blame(err)
		return nil, err
	}
}

// connect returns a Back for the request to an endpoint.
func (t *attempts) connect(e *upstream.Endpoint, fresh bool) (message.Back, error) {
	log := &t.x.Log
	log.Attempts++
	asked := t.sinceStart()
	b, err := t.upstream.Connect(e, Need{Turn: &t.turn, Fresh: fresh, Avoid: t.avoid, Context: t.x.cancel.dialContext}, &t.given)
	switch {
	case err == nil:
		t.connected(&t.given, asked)
		return b, nil
	case err == upstream.ErrFull:
		log.Attempts-- // no connection was available
	}
	if t.given.Dial != nil {
		log.dialed(t.given.Dial)
	}
	return nil, err
}

// blame records a failure of the endpoint.
func (t *attempts) blame(err error) {
	if !t.x.cancel.failed() {
		t.endpoint.NoteRequest()
		switch reason := reasonOf(err); reason {
		case certs.ReasonResponseBroken, certs.ReasonResponseTimeout, certs.ReasonRenegotiationRequested:
			t.endpoint.NoteUnanswered(reason, err)
		default:
			t.endpoint.NoteFailure(err)
		}
	}
}

// repeatable reports whether to send a failed request to the same endpoint again,
// after tries attempts there. It does so if the endpoint has not processed the
// request, or if the connection was closed while idle and the method is
// idempotent (RFC 9110, section 9.2.2).
func (t *attempts) repeatable(err error, reused bool, tries int) bool {
	switch {
	case isRefusal(err):
		return false // see resends
	case errors.Is(err, message.ErrUnprocessed):
		return tries < maxLeaving
	case errors.Is(err, wire.ErrStale):
		return tries < maxTries
	}
	return tries < maxTries && reused && errors.Is(err, wire.ErrNoResponse) && isIdempotent(t.x.Facts.Request.Method) && t.x.Facts.Request.Length == 0
}

// resends reports whether to send a request elsewhere after its stream was
// refused: to another endpoint, or on another connection if there is no other
// endpoint. Servers refuse streams when they have too many, so this is done only a
// few times. A retry policy for refused streams decides instead, if there is one.
func (t *attempts) resends(err error) bool {
	if !isRefusal(err) || t.retry != nil && t.retry.RefusedStream || t.refusals >= maxRefused {
		return false
	}
	t.refusals++
	return true
}

// carry sends the request until there is a response to forward, and returns the Back
// to read it from.
func (t *attempts) carry() (message.Back, error) {
	t.choose()
	for {
		b, err := t.walk()
		pause, again := t.again(b, err)
		if !again {
			t.endRetries()
			return b, err
		}
		if b != nil {
			t.discard(b)
		}
		t.turn.Leave() // other requests may take its place during the pause
		if !t.sleep(pause) {
			t.endRetries()
			return nil, cmp.Or(err, errDiscarded)
		}
		t.failure = err
		t.upstream.Upstream().Retries().Note()
	}
}

// again decides whether to try again after a pause, once a try has failed with err
// or b has received a response header. If it returns true, it has paused the upload
// of the body.
func (t *attempts) again(b message.Back, err error) (pause time.Duration, again bool) {
	r := t.retry
	if r == nil || t.count >= r.attempts() || t.interimForwarded || t.x.cancel.failed() {
		return 0, false
	}
	wanted, harmless := t.retriable(b, err)
	if !wanted || !harmless && !r.repeats(t.x.Facts.Request.Method) {
		return 0, false
	}
	if pause = r.pause(t.count); !t.x.deadlines.hasTime(pause) || t.x.upload.isSpent() {
		return 0, false
	}
	if !t.budgetTaken {
		if !t.upstream.Upstream().Retries().Take() {
			return 0, false
		}
		t.budgetTaken = true
	}
	return pause, t.x.upload.replay == nil || t.x.upload.replay.pause()
}

// endRetries returns the exchange's retries to the budget.
func (t *attempts) endRetries() {
	if t.budgetTaken {
		t.budgetTaken = false
		t.upstream.Upstream().Retries().Release()
	}
}

// retriable reports whether the outcome of a try allows a retry, and whether it
// allows that for every method because the upstream has not acted upon the request.
func (t *attempts) retriable(b message.Back, err error) (wanted, harmless bool) {
	r := t.retry
	switch {
	case b != nil:
		return slices.Contains(r.Codes, t.outcome()), false
	case err == errTryDeadline:
		return true, !t.maybeSeen
	case isUnsent(err):
		return r.ConnectFailure, true
	case errors.Is(err, message.ErrUnprocessed), errors.Is(err, wire.ErrStale):
		return r.RefusedStream, true
	case isReset(err):
		return r.Reset, false
	}
	return false, false
}

// outcome returns the response's status code; for gRPC, the equivalent of its status.
func (t *attempts) outcome() int {
	if r := &t.x.response; t.x.GRPC && r.Status == 200 && r.Length == 0 {
		if status, _ := r.Fields.Get("Grpc-Status"); status == "14" {
			return 503
		}
	}
	return t.x.response.Status
}

// maxDiscard bounds how much of a discarded response is read to keep its
// connection.
const maxDiscard = 64 << 10

// discard ends a try whose response is not forwarded. It keeps the connection
// if all of the response has arrived.
func (t *attempts) discard(b message.Back) {
	clean := false
	for n := 0; t.x.upload.sent.Load() && n < maxDiscard && b.Buffered(); {
		p, err := b.Read()
		if clean = err == io.EOF; err != nil {
			break
		}
		n += len(p)
	}
	if !clean {
		t.abandon(b, errDiscarded)
		return
	}
	if t.x.upload.replay != nil {
		t.x.upload.replay.leave()
	}
	t.x.cancel.detach()
	b.Done()
}

// abandon ends the try with b, so that the request can be sent again if
// possible.
func (t *attempts) abandon(b message.Back, cause error) {
	if t.x.upload.replay == nil {
		t.x.drop(b, cause)
		return
	}
	b.Abort(cause)
	t.x.upload.expect.release()
	t.x.upload.replay.leave()
	t.x.cancel.detach()
	b.Done()
}

// sleep waits for d, and reports false if the exchange ended meanwhile.
func (t *attempts) sleep(d time.Duration) bool {
	ctx, done := t.x.cancel.context()
	defer done()
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return !t.x.cancel.failed()
	case <-ctx.Done():
		return false
	}
}

// queue returns a context for the wait for an endpoint, and measures that wait.
func (t *attempts) queue() (ctx context.Context, done func()) {
	begun := time.Now()
	ctx, release := t.x.cancel.context()
	return ctx, func() {
		release()
		t.x.Log.Queued += time.Since(begun)
	}
}
