package exchange

import (
	"errors"
	"os"
	"time"

	"github.com/drawbridge-gateway/drawbridge/bridge/l7/http1"
	"github.com/drawbridge-gateway/drawbridge/bridge/l7/message"
	"github.com/drawbridge-gateway/drawbridge/bridge/l7/policy"
	"github.com/drawbridge-gateway/drawbridge/bridge/upstream"
	"github.com/drawbridge-gateway/drawbridge/certs"
)

var (
	// errDeadline ends an exchange whose Forward.Timeout ran out.
	errDeadline = errors.New("the upstream sent no response header in time")

	// errTooLong ends an exchange whose Forward.TotalTimeout ran out.
	errTooLong = errors.New("the response did not end within the total timeout")

	// errUpgrade reports an upgrade to a protocol that the client did not ask for.
	errUpgrade = errors.New("the upstream did not switch to the requested protocol")

	// errInterims reports too many interim responses.
	errInterims = errors.New("the upstream sent too many interim responses")
)

// A Plan says how to forward a request.
type Plan struct {
	Upstream Upstream // nil: no upstream
	Hash     upstream.Key

	// Timeout bounds the wait for the response's head; 0: Shared.ResponseTimeout.
	// TotalTimeout bounds the whole exchange; 0: no limit.
	Timeout, TotalTimeout time.Duration

	Retry *Retry // nil: only requests that no endpoint can have seen are sent again
}

// Forward carries the request to an upstream and the response back. If it returns true,
// the exchange has become an upgraded connection that an engine carries. Then the caller
// must not use the exchange before TunnelEnded is called, which may already have happened.
func (x *Exchange) Forward(p Plan) (tunnels bool) {
	if x.try.upstream = p.Upstream; p.Upstream == nil {
		x.failed(upstream.ErrNoEndpoint)
		return false
	}
	r := x.Facts.Request
	x.try.hash = p.Hash
	if x.ExpectsContinue {
		r.Fields.Add("Expect", "100-continue")
	}
	total, err := x.totalTime(p.TotalTimeout)
	if err != nil {
		x.failed(err)
		return false
	}
	if x.try.retry = p.Retry; r.Upgrade != "" {
		x.try.retry = nil
	}
	if x.try.retry != nil && r.HasBody() {
		x.upload.replay = x.upload.newReplay()
	}
	x.deadlines.start(p.Timeout, total)
	x.front.Notify(x.cancel.onGone)
	b, err := x.try.carry()
	if err == nil && x.relay(b) {
		return true
	}
	x.end(err)
	return false
}

// end ends the exchange. err is the failure of its tries; nil: they succeeded.
func (x *Exchange) end(err error) {
	x.front.Notify(nil)
	x.try.leave()
	x.deadlines.stop()
	if err != nil {
		x.upload.stop()
		x.failed(err)
	}
	x.upload.replay.free()
	x.upload.replay = nil
}

// failed answers a request that failed upstream, and logs the reason if it matters.
func (x *Exchange) failed(err error) {
	log, name := x.shared.Log, ""
	if x.try.upstream != nil {
		name = x.try.upstream.Upstream().Name()
	}
	cause := x.cancel.reason()
	var body *bodyError
	switch {
	case errors.As(cause, &body):
		x.badBody(body.err, name)
		return
	case cause == errCallDeadline: // the client already knows the deadline
		x.Log.Reason = reasonOf(cause)
		log.Debug("call exceeded its deadline", "client", x.Facts.Client, "upstream", name)
		x.refuse(policy.GatewayTimeout)
		return
	case errors.Is(err, errCallTimeout):
		log.Debug("request refused", "client", x.Facts.Client, "error", err)
		x.refuse(policy.BadRequest)
		return
	case errors.Is(cause, errDeadline), errors.Is(cause, errTooLong), cause == error(errUnread):
		x.try.reportLate(cause)
		x.logFailure(name, policy.GatewayTimeout.Code, cause)
		x.refuse(policy.GatewayTimeout)
		return
	case cause == nil && err == errTryDeadline:
		x.logFailure(name, policy.GatewayTimeout.Code, err)
		x.refuse(policy.GatewayTimeout)
		return
	case cause != nil: // or the context of Shutdown ended
		log.Debug("request ended before its response", "client", x.Facts.Client, "upstream", name, "error", cause)
		x.abort(cause)
		return
	case errors.Is(err, message.ErrNoWebSocket):
		x.logFailure(name, policy.BadGateway.Code, err)
		x.refuse(policy.BadGateway)
		return
	case errors.Is(err, message.ErrNoUpgrade):
		x.logFailure(name, 501, err)
		x.refuse(policy.Rejection(501))
		return
	case unwritable(err):
		log.Debug("request refused", "client", x.Facts.Client, "error", policy.Printable(err))
		if errors.Is(err, message.ErrHeadTooLarge) {
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

// isTimeout reports whether the upstream took too long to accept a connection,
// complete the handshake, or answer.
func isTimeout(r certs.Reason) bool {
	return r == certs.ReasonConnectTimeout || r == certs.ReasonHandshakeTimeout || r == certs.ReasonResponseTimeout
}

// badBody answers a request whose body is invalid or incomplete.
func (x *Exchange) badBody(err error, name string) {
	var malformed *http1.Error
	switch {
	case errors.Is(err, errBodyTooLarge):
		x.shared.Log.Debug("request's body refused", "client", x.Facts.Client, "upstream", name, "error", err)
		x.refuse(policy.Rejection(413))
	case errors.Is(err, os.ErrDeadlineExceeded):
		x.shared.Log.Debug("client stopped sending its request's body", "client", x.Facts.Client, "upstream", name)
		x.refuse(policy.RequestTimeout)
	case errors.As(err, &malformed):
		x.shared.Log.Debug("request's body refused", "client", x.Facts.Client, "upstream", name, "error", policy.Printable(err))
		x.refuse(policy.Rejection(malformed.Status))
	default:
		x.shared.Log.Debug("client aborted its request's body", "client", x.Facts.Client, "upstream", name)
		x.abort(err)
	}
}

// logFailure warns about an upstream's failure, unless the same warning was
// logged a moment ago.
func (x *Exchange) logFailure(name string, code int, err error) {
	reason := reasonOf(err)
	x.Log.Reason = reason
	suppressed, due := x.shared.failures.due(name, reason, time.Now())
	if !due {
		return
	}
	endpoint := ""
	if x.try.endpoint != nil {
		endpoint = x.try.endpoint.Address()
	}
	x.shared.Log.Warn("request failed", "route", x.Facts.Route, "upstream", name, "endpoint", endpoint,
		"code", code, "reason", string(reason), "error", policy.Printable(err), "suppressed", suppressed)
}
