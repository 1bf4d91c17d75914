package upstream

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"github.com/drawbridge-gateway/drawbridge/bridge/socket"
	"github.com/drawbridge-gateway/drawbridge/certs"
)

// The results of an endpoint are what connecting to it came to, and what traffic
// reports of the connections that DialAs has returned. They decide on its health where
// there is no health check, and on its ejection. What a client causes is never
// reported as a failure of the endpoint.
type results struct {
	endpoint    *Endpoint
	late        atomic.Bool // the last failure came after a handshake; the endpoint has sent nothing since
	streamBroke atomic.Bool // the last stream broke; none has ended well since
	failures    failures
}

// succeeded is told of each connection that was made.
func (r *results) succeeded(p Purpose) {
	r.endpoint.counts.made.Add(1)
	if r.late.Load() {
		return
	}
	r.up()
	r.endpoint.outlier.handshakeSucceeded()
	if p == Stream {
		r.NoteStream()
	}
}

// failed is told of each that was not. It learns nothing from one that ctx cancelled.
func (r *results) failed(ctx context.Context, failure *DialError) error {
	if !errors.Is(ctx.Err(), context.Canceled) {
		r.note(failure, failure.Phase == "tls")
	}
	return failure
}

// NoteFailure counts and logs that the endpoint refused a connection after DialAs
// had returned it. A TLS 1.3 server checks the client's certificate after the client
// has finished its handshake, so its refusal is what the first read fails with. From
// then on a handshake alone does not show that the endpoint is up: NoteReply does.
func (r *results) NoteFailure(err error) {
	r.late.Store(true)
	r.note(r.endpoint.failure("tls", 0, err), refused(err))
}

// NoteUnanswered counts and logs that a request was sent over a connection and no
// response to it began, for a reason of its own.
func (r *results) NoteUnanswered(reason certs.Reason, err error) {
	f := r.endpoint.failure("http", 0, err)
	f.Reason = reason
	r.late.Store(true)
	r.note(f, false)
}

// NoteBroken counts and logs that the response to a request broke off or was too
// late, for a reason of its own. It does not change the endpoint's health, which is
// what connecting to it came to. Judged says that NoteResult was told of the request
// already.
func (r *results) NoteBroken(reason certs.Reason, err error, judged bool) {
	failure := r.count("http", reason, err)
	if !judged {
		r.endpoint.outlier.bad(false, failure)
	}
}

// NoteReply says that the endpoint has sent something over a connection, and
// so has accepted it.
func (r *results) NoteReply() {
	if r.late.Load() {
		r.late.Store(false)
		r.up()
		r.endpoint.outlier.handshakeSucceeded()
	}
}

// NoteResult says how a request to the endpoint has ended, unless that is the
// client's doing or another method was told: well, or with a failure of the
// endpoint's. It is cheap.
func (r *results) NoteResult(ok bool) {
	if ok {
		r.endpoint.outlier.good()
	} else {
		r.endpoint.outlier.bad(false, nil)
	}
}

// NoteStream says that a stream of bytes has begun, such as that of an upgraded
// connection; of those that DialAs makes for Stream it is known. It counts as a
// success, but not while the last stream broke: then the next that ends well does,
// or an endpoint that breaks every stream would have as many successes as failures.
func (r *results) NoteStream() {
	if !r.streamBroke.Load() {
		r.endpoint.outlier.good()
	}
}

// NoteStreamEnd says how a stream of bytes has ended: for no reason if neither side
// failed. Failures of the upstream are counted. A stream without close_notify is
// not a failure for outlier detection, as many servers end every connection so.
func (r *results) NoteStreamEnd(reason certs.Reason, err error) {
	switch reason {
	case certs.ReasonUpstreamReset, certs.ReasonUpstreamFailed:
		r.streamBroke.Store(true)
		r.endpoint.outlier.bad(false, r.count("stream", reason, err))
		return
	case certs.ReasonUpstreamTruncated:
		r.failures.add(reason, printable(err.Error()))
	case "":
	default:
		return // the client's failure says nothing about the endpoint
	}
	if r.streamBroke.Load() && r.streamBroke.Swap(false) {
		r.endpoint.outlier.good()
	}
}

func (r *results) up() {
	if r.endpoint.checker != nil {
		return
	}
	if r.endpoint.health.load() == Down {
		defer r.endpoint.warm.signal()
	}
	r.endpoint.health.set(Up, func() { r.endpoint.tell(Event{Kind: HealthChanged, Health: Up}) })
}

// note counts a failure to connect, be it that the handshake failed, or another, and
// acts on what it means for the endpoint.
func (r *results) note(f *DialError, handshake bool) {
	failure, suppressed, due := r.failures.add(f.Reason, printable(f.Err.Error()))
	if !r.blamesHost(f.Reason) && !socket.OutOfDescriptors(f.Err) {
		if r.endpoint.checker == nil {
			r.endpoint.health.set(Down, func() { r.endpoint.tell(Event{Kind: HealthChanged, Health: Down, Failure: failure}) })
		}
		r.endpoint.warm.signal()
		if f.Reason != certs.ReasonLocalConfig {
			r.endpoint.outlier.bad(handshake, failure)
		}
	}
	if due {
		r.report(f.Phase, f.Elapsed, failure, suppressed)
	}
}

// count counts a failure in a phase and reports it if that is due.
func (r *results) count(phase string, reason certs.Reason, err error) *Failure {
	failure, suppressed, due := r.failures.add(reason, printable(err.Error()))
	if due {
		r.report(phase, 0, failure, suppressed)
	}
	return failure
}

// report logs a failure and tells the observer of it.
func (r *results) report(phase string, elapsed time.Duration, f *Failure, suppressed uint64) {
	r.endpoint.upstream.log.Warn("endpoint failed", "endpoint", r.endpoint.Address(), "phase", phase, "reason", string(f.Reason),
		"error", f.Message, "elapsed", elapsed, "suppressed", suppressed)
	r.endpoint.tell(Event{Kind: Failed, Health: r.endpoint.health.load(), Failure: f, Count: suppressed + 1})
}

// blamesHost reports whether a failure says more about the host that a client
// asked for than about the endpoint. Clients must not be able to talk an
// endpoint down.
func (r *results) blamesHost(reason certs.Reason) bool {
	switch reason {
	case certs.ReasonNameMismatch, certs.ReasonUnrecognizedName, certs.ReasonLocalConfig:
		return r.endpoint.fromHost
	}
	return false
}
