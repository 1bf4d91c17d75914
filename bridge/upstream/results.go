package upstream

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"github.com/drawbridge-gateway/drawbridge/bridge/socket"
	"github.com/drawbridge-gateway/drawbridge/certs"
)

// results records the results of connecting to an endpoint, and the reports of
// traffic on connections from DialAs. Without a health check they determine
// the endpoint's health; outlier detection uses them too. Failures that a
// client causes are never counted against the endpoint.
type results struct {
	endpoint    *Endpoint
	replyNeeded atomic.Bool // the last failure came after a handshake, and the endpoint has sent nothing since
	streamBroke atomic.Bool // the last stream broke, and none has ended well since
	failures    failures
}

// succeeded records a successful connection.
func (r *results) succeeded(p Purpose) {
	r.endpoint.counts.made.Add(1)
	if r.replyNeeded.Load() {
		return
	}
	r.up()
	r.endpoint.outlier.handshakeSucceeded()
	if p == Stream {
		r.NoteStream()
	}
}

// failed records a failed attempt. It ignores an attempt that ctx canceled, or that
// failed because of the client.
func (r *results) failed(ctx context.Context, failure *DialError) error {
	if !errors.Is(ctx.Err(), context.Canceled) && failure.Reason != certs.ReasonClientFailed {
		r.note(failure, failure.Phase == "tls")
	}
	return failure
}

// NoteFailure records that the endpoint rejected a connection after DialAs
// returned it. A TLS 1.3 server checks the client's certificate after the
// client has finished its handshake, so the first read returns the rejection.
// From then on, a completed handshake does not show that the endpoint is up,
// but NoteReply does.
func (r *results) NoteFailure(err error) {
	r.replyNeeded.Store(true)
	r.note(r.endpoint.failure("tls", 0, err), certs.IsAlert(err))
}

// NoteUnanswered records that a request was sent and no response began, because
// the connection failed or the response was late.
func (r *results) NoteUnanswered(reason certs.Reason, err error) {
	f := r.endpoint.failure("http", 0, err)
	f.Reason = reason
	r.replyNeeded.Store(true)
	r.note(f, false)
}

// NoteBroken records that the response to a request was incomplete or arrived too
// late. It does not change the endpoint's health, which depends only on
// connecting. counted says that NoteResult was already called for the request.
func (r *results) NoteBroken(reason certs.Reason, err error, counted bool) {
	failure := r.count("http", reason, err)
	if !counted {
		r.endpoint.outlier.recordFailure(false, failure)
	}
}

// NoteReply records that the endpoint sent something over a connection, and so
// has accepted it.
func (r *results) NoteReply() {
	if r.replyNeeded.Load() {
		r.replyNeeded.Store(false)
		r.up()
		r.endpoint.outlier.handshakeSucceeded()
	}
}

// NoteResult records the outcome of a request: success, or a failure of the
// endpoint. It is not called if the client caused the outcome or another
// method recorded it. It is cheap.
func (r *results) NoteResult(ok bool) {
	if ok {
		r.endpoint.outlier.recordSuccess()
	} else {
		r.endpoint.outlier.recordFailure(false, nil)
	}
}

// NoteStream records that a stream of bytes began, such as an upgraded
// connection; DialAs records its own Streams. It counts as a success, unless
// the last stream broke: then only a stream that ends well does. Otherwise an
// endpoint that breaks every stream would have as many successes as failures.
func (r *results) NoteStream() {
	if !r.streamBroke.Load() {
		r.endpoint.outlier.recordSuccess()
	}
}

// NoteStreamEnd records how a stream of bytes ended; the reason is empty if
// neither side failed. Failures of the upstream are counted. A stream without
// close_notify does not count for outlier detection, because many servers end
// every connection that way.
func (r *results) NoteStreamEnd(reason certs.Reason, err error) {
	switch reason {
	case certs.ReasonUpstreamReset, certs.ReasonUpstreamFailed:
		r.streamBroke.Store(true)
		r.endpoint.outlier.recordFailure(false, r.count("stream", reason, err))
		return
	case certs.ReasonUpstreamTruncated:
		r.failures.add(reason, printable(err.Error()))
	case "":
	default:
		return // a failure of the client proves nothing about the endpoint
	}
	if r.streamBroke.Load() && r.streamBroke.Swap(false) {
		r.endpoint.outlier.recordSuccess()
	}
}

func (r *results) up() {
	if r.endpoint.checker != nil {
		return
	}
	if r.endpoint.health.load() == Down {
		defer r.endpoint.warm.signal()
	}
	r.endpoint.health.set(Up, func() { r.endpoint.notify(Event{Kind: HealthChanged, Health: Up}) })
}

// note records a failure to connect and acts on it. handshake reports that the
// handshake failed.
func (r *results) note(f *DialError, handshake bool) {
	failure, suppressed, due := r.failures.add(f.Reason, printable(f.Err.Error()))
	if !r.blamesHost(f.Reason) && !socket.OutOfDescriptors(f.Err) {
		if r.endpoint.checker == nil {
			r.endpoint.health.set(Down, func() { r.endpoint.notify(Event{Kind: HealthChanged, Health: Down, Failure: failure}) })
		}
		r.endpoint.warm.signal()
		switch f.Reason {
		case certs.ReasonLocalConfig, certs.ReasonEgressProxyFailed, certs.ReasonEgressProxyRefused:
			// The failure says nothing about the endpoint.
		default:
			r.endpoint.outlier.recordFailure(handshake, failure)
		}
	}
	if due {
		r.report(f.Phase, f.Elapsed, failure, suppressed)
	}
}

// count counts a failure in a phase, and reports it if due.
func (r *results) count(phase string, reason certs.Reason, err error) *Failure {
	failure, suppressed, due := r.failures.add(reason, printable(err.Error()))
	if due {
		r.report(phase, 0, failure, suppressed)
	}
	return failure
}

// report logs a failure and notifies the observer.
func (r *results) report(phase string, elapsed time.Duration, f *Failure, suppressed uint64) {
	r.endpoint.upstream.log.Warn("endpoint failed", "endpoint", r.endpoint.Address(), "phase", phase, "reason", string(f.Reason),
		"error", f.Message, "elapsed", elapsed, "suppressed", suppressed)
	r.endpoint.notify(Event{Kind: Failed, Health: r.endpoint.health.load(), Failure: f, Count: suppressed + 1})
}

// blamesHost reports whether the host that a client requested is a more likely
// cause of a failure than the endpoint. Clients must not be able to take an
// endpoint down.
func (r *results) blamesHost(reason certs.Reason) bool {
	switch reason {
	case certs.ReasonNameMismatch, certs.ReasonUnrecognizedName, certs.ReasonLocalConfig:
		return r.endpoint.fromHost
	}
	return false
}
