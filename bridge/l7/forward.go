package l7

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/drawbridge-gateway/drawbridge/bridge/l7/http1"
	"github.com/drawbridge-gateway/drawbridge/bridge/l7/http2"
	"github.com/drawbridge-gateway/drawbridge/bridge/l7/policy"
	"github.com/drawbridge-gateway/drawbridge/bridge/l7/wire"
	"github.com/drawbridge-gateway/drawbridge/bridge/upstream"
	"github.com/drawbridge-gateway/drawbridge/certs"
)

var (
	// errDeadline ends an exchange whose Forward.Timeout ran out.
	errDeadline = errors.New("the upstream's response header did not come in time")

	// errTooLong ends one whose Forward.TotalTimeout ran out.
	errTooLong = errors.New("the response was not over in time")

	// errUpgrade is what an upgrade fails with that is not the one the client asked for.
	errUpgrade = errors.New("the upstream did not change to the protocol that it was asked for, or changed to another")

	// errInterims bounds what an upstream may say before it answers.
	errInterims = errors.New("the upstream sent too many interim responses")
)

// A bodyError ends an exchange whose request's body broke off.
type bodyError struct{ err error }

func (e *bodyError) Error() string { return "the request's body: " + e.err.Error() }
func (e *bodyError) Unwrap() error { return e.err }

// forward carries the request to an upstream and the response back.
func (x *exchange) forward() {
	path, err := x.action.Forward.Rewrite.Apply(x.facts.Target.Path)
	if err != nil {
		x.server.log.Debug("request refused", "client", x.facts.Client, "route", x.action.Route, "error", "rewritten: "+policy.Printable(err))
		x.answer(policy.BadRequest)
		return
	}
	x.back = x.action.Forward.Backs.Pick()
	if x.back == nil {
		x.failed(upstream.ErrNoEndpoint)
		return
	}
	if x.facts.Target.Host == "" && x.back.options.Upstream.FromHost() {
		x.answer(policy.BadRequest) // there is no name to ask the upstream for
		return
	}
	r := x.facts.Request
	x.facts.Upstream = x.back.options.Upstream.Name()
	hash := x.back.options.Upstream.Hash()
	x.hash = x.facts.HashKey(hash)
	if hash.Header != "" {
		x.spelling.RemoveRespelled(&r.Fields, hash.Header)
	}
	x.prepareRequest()
	r.Target = x.facts.Target.WithPath(path, r.Target)
	if x.expects {
		r.Fields.Add("Expect", "100-continue")
	}
	total, err := x.bound()
	if err != nil {
		x.failed(err)
		return
	}
	if x.retry = x.action.Forward.Retry; r.Upgrade != "" {
		x.retry = nil
	}
	if x.retry != nil && r.HasBody() {
		x.replay = x.newReplay()
	}
	x.startTimer(x.action.Forward.Timeout, total)
	x.front.Notify(x.gone)
	b, err := x.carry()
	if err == nil {
		x.relay(b)
	}
	x.front.Notify(nil)
	x.leave()
	x.stopTimer()
	if err != nil {
		x.quit()
		x.failed(err)
	}
	x.replay.free()
	x.replay = nil
}

// prepareRequest gives the request the header that the upstream is sent.
func (x *exchange) prepareRequest() {
	f, t := &x.facts, x.table
	f.SetForwarding(t.Forwarding)
	f.SetCertificate(t.ClientCertificate)
	f.SetRequestID(t.RequestIDField)
	if t.MakeTrace {
		policy.BeginTrace(&f.Request.Fields, &x.server.entropy)
	}
	rules := &x.action.RequestHeaders
	rules.ApplyRequest(f)
	x.protected = policy.Protected{
		Rules: rules, RequestIDField: t.RequestIDField, HashField: x.back.options.Upstream.Hash().Header,
		Traces: t.MakeTrace, Spelling: &x.spelling,
	}
	x.protected.CleanAnnouncement(f.Request)
}

// leave gives back what the exchange has of its upstream, if anything.
func (x *exchange) leave() {
	x.turn.End()
	x.endRetries()
}

// quit ends the uploads that may still be waiting for the client.
func (x *exchange) quit() {
	if x.replay != nil && x.uploading {
		x.over.Store(true)
		x.front.Refuse()
		x.release()
		x.sending.Wait()
	}
}

// choose begins the way through the upstream's endpoints.
func (x *exchange) choose() {
	x.turn.End()
	x.turn.Begin(x.back.options.Upstream, x.hash)
	x.turn.Prefer(x.conn.logins[x.back])
	if x.facts.Request.Upgrade != "" && x.back.options.Protocol != HTTP2 {
		x.turn.Exclusive()
	}
}

// chooseAgain begins it again, with another than the last endpoint if there is one,
// and returns the first.
func (x *exchange) chooseAgain() (*upstream.Endpoint, error) {
	last := x.endpoint
	x.choose()
	e, err := x.turn.Next(x.wait)
	if err != nil || e != last {
		return e, err
	}
	if e, err = x.turn.Next(x.wait); err == nil {
		return e, nil
	}
	x.choose()
	return x.turn.Next(x.wait)
}

// walk makes a try: it sends the request to the first endpoint that can be
// connected to, and returns what its response is read from.
func (x *exchange) walk() (back, error) {
	x.startTry()
	var err error
	for begun := x.tries == 1; ; {
		e, none := x.turn.Next(x.wait)
		if (!begun || isRefusal(err)) && errors.Is(none, upstream.ErrNoEndpoint) {
			// It has been to all of them, in other tries and in this.
			begun = true
			e, none = x.chooseAgain()
		}
		if none != nil {
			err = cmp.Or(err, x.failure, none) // why the one before failed, if there was one
			break
		}
		b, failure := x.try(e)
		if failure == nil {
			if !x.endTry() {
				return b, nil
			}
			x.abandon(b, errTryDeadline)
			return nil, errTryDeadline
		}
		if failure == upstream.ErrFull {
			x.turn.Full()
			continue
		}
		err = failure
		if !isUnsent(err) && !x.resends(err) || x.spent() || x.ended() || x.isLate() {
			break
		}
	}
	if x.endTry() {
		return nil, errTryDeadline
	}
	return nil, err
}

const (
	// maxTries bounds how often a request is sent to one endpoint because the
	// connection that it was given turned out to be closed.
	maxTries = 3

	// maxLeaving bounds how often a request is sent to one endpoint because the
	// connection that it was given takes no more requests. It may find many such:
	// servers let a connection have only so many requests.
	maxLeaving = 8

	// maxRefused bounds how often a request is sent elsewhere because a server
	// refused its stream.
	maxRefused = 2
)

// try sends the request to one endpoint. It sends the request again, on another
// connection, if the endpoint cannot have processed it, or if the method is
// idempotent and the connection was closed while it was idle.
func (x *exchange) try(e *upstream.Endpoint) (back, error) {
	x.endpoint, x.facts.Endpoint = e, e.Address()
	x.facts.Request.Scheme, x.facts.Request.Authority = x.back.scheme(), x.facts.Target.Authority
	if x.back.options.SendUpstreamHost || x.facts.Request.Authority == "" {
		x.facts.Request.Authority = x.back.host(e)
	}
	pool := x.pool(e)
	for tries := 1; ; tries++ {
		b, reused, err := pool.get(x, tries >= maxTries)
		if err != nil {
			switch {
			case x.isLate():
				e.NoteUnanswered(certs.ReasonResponseTimeout, errTryDeadline)
			case !isUnsent(err):
				x.blame(err)
			}
			return nil, err
		}
		x.turn.Connected()
		x.exposed = true
		if err = x.send(b); err == nil {
			err = x.receive(b)
		}
		if err == nil {
			e.NoteRequest()
			return b, nil
		}
		if c, ok := b.(interface{ carrier() *conn2 }); ok && isRefusal(err) {
			x.refuser = c.carrier()
		}
		x.abandon(b, err)
		if x.ended() {
			return nil, err
		}
		if x.isLate() {
			x.blame(errTryDeadline)
			return nil, errTryDeadline
		}
		if unwritable(err) {
			return nil, err
		}
		if !x.spent() && x.repeatable(err, reused, tries) {
			continue
		}
		x.blame(err)
		return nil, err
	}
}

// blame notes a failure that is the endpoint's.
func (x *exchange) blame(err error) {
	if !x.ended() {
		x.endpoint.NoteRequest()
		switch reason := reasonOf(err); reason {
		case certs.ReasonResponseBroken, certs.ReasonResponseTimeout:
			x.endpoint.NoteUnanswered(reason, err)
		default:
			x.endpoint.NoteFailure(err)
		}
	}
}

// repeatable reports whether a request that failed, which was sent to an endpoint
// so many times, is to be sent there again: the endpoint has not processed it, or
// its connection was closed while it was idle, and the method does no harm twice
// (RFC 9110, section 9.2.2).
func (x *exchange) repeatable(err error, reused bool, tries int) bool {
	switch {
	case isRefusal(err):
		return false // see resends
	case errors.Is(err, http2.ErrUnprocessed):
		return tries < maxLeaving
	case errors.Is(err, wire.ErrStale):
		return tries < maxTries
	}
	return tries < maxTries && reused && errors.Is(err, errNoResponse) && isIdempotent(x.facts.Request.Method) && x.facts.Request.Length == 0
}

// resends reports whether a request whose stream was refused is to be sent
// elsewhere: to another endpoint, or on another connection if there is no other
// endpoint. Servers refuse streams when they have too many, so this is done only a
// few times. A retry policy for refused streams decides instead, if there is one.
func (x *exchange) resends(err error) bool {
	if !isRefusal(err) || x.retry != nil && x.retry.RefusedStream || x.refusals >= maxRefused {
		return false
	}
	x.refusals++
	return true
}

// isUnsent reports whether nothing of a request can have reached an endpoint,
// so that another may be tried.
func isUnsent(err error) bool {
	var dial *upstream.DialError
	return errors.As(err, &dial) || err == upstream.ErrFull || errors.Is(err, errNoStreams)
}

// failed answers a request that came to nothing upstream, and says why where it
// matters.
func (x *exchange) failed(err error) {
	s, name := x.server, ""
	if x.back != nil {
		name = x.back.options.Upstream.Name()
	}
	x.mu.Lock()
	cause := x.cause
	x.mu.Unlock()
	var body *bodyError
	switch {
	case errors.As(cause, &body):
		x.badBody(body.err, name)
		return
	case cause == errCallDeadline: // as its client knows: nobody else need
		x.noted.reason = reasonOf(cause)
		s.log.Debug("call was not answered before its deadline", "client", x.facts.Client, "upstream", name)
		x.refuse(policy.GatewayTimeout)
		return
	case errors.Is(err, errCallTimeout):
		s.log.Debug("request refused", "client", x.facts.Client, "error", err)
		x.refuse(policy.BadRequest)
		return
	case errors.Is(cause, errDeadline), errors.Is(cause, errTooLong), cause == error(errUnread):
		x.judgeLate(cause)
		x.logFailure(name, policy.GatewayTimeout.Code, cause)
		x.refuse(policy.GatewayTimeout)
		return
	case cause == nil && err == errTryDeadline:
		x.logFailure(name, policy.GatewayTimeout.Code, err)
		x.refuse(policy.GatewayTimeout)
		return
	case cause != nil: // or Shutdown has given up waiting
		s.log.Debug("client left before its request was answered", "client", x.facts.Client, "upstream", name)
		x.abort(cause)
		return
	case errors.Is(err, errNoWebSocket):
		x.logFailure(name, policy.BadGateway.Code, err)
		x.refuse(policy.BadGateway)
		return
	case errors.Is(err, errNoUpgrade):
		x.logFailure(name, 501, err)
		x.refuse(policy.Rejection(501))
		return
	case unwritable(err):
		s.log.Debug("request refused", "client", x.facts.Client, "error", policy.Printable(err))
		if errors.Is(err, http2.ErrHeadTooLarge) {
			x.refuse(policy.Rejection(431))
		} else {
			x.refuse(policy.BadRequest)
		}
		return
	}
	a := policy.BadGateway
	switch {
	case errors.Is(err, upstream.ErrOverloaded):
		a = policy.Overloaded
	case errors.Is(err, upstream.ErrNoEndpoint):
		a = policy.ServiceUnavailable
	case isTimeout(reasonOf(err)):
		a = policy.UpstreamTimeout
	}
	x.logFailure(name, a.Code, err)
	x.refuse(a)
}

// isTimeout reports whether a failure is that the upstream took too long: to be
// connected to, to shake hands, or to answer.
func isTimeout(r certs.Reason) bool {
	return r == certs.ReasonConnectTimeout || r == certs.ReasonHandshakeTimeout || r == certs.ReasonResponseTimeout
}

// badBody answers a request whose body the client did not send as it should.
func (x *exchange) badBody(err error, name string) {
	var malformed *http1.Error
	switch {
	case errors.Is(err, errBodyTooLarge):
		x.server.log.Debug("request's body refused", "client", x.facts.Client, "upstream", name, "error", err)
		x.refuse(policy.Rejection(413))
	case errors.Is(err, os.ErrDeadlineExceeded):
		x.server.log.Debug("client stopped sending its request's body", "client", x.facts.Client, "upstream", name)
		x.refuse(policy.RequestTimeout)
	case errors.As(err, &malformed):
		x.server.log.Debug("request's body refused", "client", x.facts.Client, "upstream", name, "error", policy.Printable(err))
		x.refuse(policy.Rejection(malformed.Status))
	default:
		x.server.log.Debug("client broke off its request's body", "client", x.facts.Client, "upstream", name)
		x.abort(err)
	}
}

// refuse answers instead of the upstream.
func (x *exchange) refuse(a policy.Answer) {
	x.front.Refuse()
	x.answer(a)
}

// logFailure warns about an upstream's failure, unless the same was said a
// moment ago.
func (x *exchange) logFailure(name string, code int, err error) {
	s, reason := x.server, reasonOf(err)
	x.noted.reason = reason
	suppressed, log := s.failures.due(name, reason, time.Now())
	if !log {
		return
	}
	endpoint := ""
	if x.endpoint != nil {
		endpoint = x.endpoint.Address()
	}
	s.log.Warn("request failed", "route", x.action.Route, "upstream", name, "endpoint", endpoint,
		"code", code, "reason", string(reason), "error", policy.Printable(err), "suppressed", suppressed)
}

// fail ends the exchange before its time. It may be called by any goroutine.
func (x *exchange) fail(cause error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.cause == nil {
		x.cause = cause
	}
	if x.cancel != nil {
		x.cancel()
	}
	if x.live != nil {
		x.live.Abort(cause)
	}
}

// ended reports whether fail was called.
func (x *exchange) ended() bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.cause != nil
}

// ranOut reports whether the time for all of the exchange did.
func (x *exchange) ranOut() bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.cause == errTooLong || x.cause == errCallDeadline
}

// attach makes b what carries the exchange, unless that has failed.
func (x *exchange) attach(b back) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	switch {
	case x.cause != nil:
		return x.cause
	case x.late:
		return errTryDeadline
	}
	x.live = b
	return nil
}

// detach says that b is not to be aborted any more.
func (x *exchange) detach() {
	x.mu.Lock()
	x.live = nil
	x.mu.Unlock()
}

// context returns a context for dialing that ends when the exchange fails. The
// caller must call done.
func (x *exchange) context() (ctx context.Context, done func()) {
	ctx, cancel := context.WithCancel(x.server.ctx)
	x.mu.Lock()
	defer x.mu.Unlock()
	x.cancel = cancel
	if x.cause != nil || x.late {
		cancel()
	}
	return ctx, func() {
		x.mu.Lock()
		x.cancel = nil
		x.mu.Unlock()
		cancel()
	}
}

// atEndpoint says which endpoint an error is about.
func atEndpoint(e *upstream.Endpoint, err error) error {
	return fmt.Errorf("endpoint %s: %w", e.Address(), err)
}
