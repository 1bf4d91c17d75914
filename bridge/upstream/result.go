package upstream

import (
	"time"

	"github.com/drawbridge-gateway/drawbridge/bridge/socket"
	"github.com/drawbridge-gateway/drawbridge/certs"
)

// What traffic tells an Endpoint of the connections that DialAs has returned. What a
// client causes is never told as a failure of the endpoint.

// NoteFailure counts and logs that the endpoint refused a connection after DialAs
// had returned it. A TLS 1.3 server checks the client's certificate after the client
// has finished its handshake, so its refusal is what the first read fails with. From
// then on a handshake alone does not show that the endpoint is up: NoteReply does.
func (e *Endpoint) NoteFailure(err error) {
	e.late.Store(true)
	e.note(e.failure("tls", 0, err), refused(err))
}

// NoteUnanswered counts and logs that a request was sent over a connection and no
// response to it began, for a reason of its own.
func (e *Endpoint) NoteUnanswered(reason certs.Reason, err error) {
	f := e.failure("http", 0, err)
	f.Reason = reason
	e.late.Store(true)
	e.note(f, false)
}

// NoteBroken counts and logs that the response to a request broke off or was too
// late, for a reason of its own. It does not change the endpoint's health, which is
// what connecting to it came to. Judged says that NoteResult was told of the request
// already.
func (e *Endpoint) NoteBroken(reason certs.Reason, err error, judged bool) {
	failure := e.count("http", reason, err)
	if !judged {
		e.outlier.bad(false, failure)
	}
}

// NoteReply says that the endpoint has sent something over a connection, and
// so has accepted it.
func (e *Endpoint) NoteReply() {
	if e.late.Load() {
		e.late.Store(false)
		e.up()
		e.outlier.shook()
	}
}

// NoteResult says how a request to the endpoint has ended, unless that is the
// client's doing or another method was told: well, or with a failure of the
// endpoint's. It is cheap.
func (e *Endpoint) NoteResult(ok bool) {
	if ok {
		e.outlier.good()
	} else {
		e.outlier.bad(false, nil)
	}
}

// NoteStream says that a stream of bytes has begun, such as that of an upgraded
// connection; of those that DialAs makes for Stream it is known. It counts as a
// success, but not while the last stream broke: then the next that ends well does,
// or an endpoint that breaks every stream would have as many successes as failures.
func (e *Endpoint) NoteStream() {
	if !e.streamBroke.Load() {
		e.outlier.good()
	}
}

// NoteStreamEnd says how a stream of bytes has ended: for no reason if neither side
// failed. Failures of the upstream are counted. A stream without close_notify is
// not a failure for outlier detection, as many servers end every connection so.
func (e *Endpoint) NoteStreamEnd(reason certs.Reason, err error) {
	switch reason {
	case certs.ReasonUpstreamReset, certs.ReasonUpstreamFailed:
		e.streamBroke.Store(true)
		e.outlier.bad(false, e.count("stream", reason, err))
		return
	case certs.ReasonUpstreamTruncated:
		e.failures.add(reason, printable(err.Error()))
	case "":
	default:
		return // the client's failure says nothing about the endpoint
	}
	if e.streamBroke.Load() && e.streamBroke.Swap(false) {
		e.outlier.good()
	}
}

func (e *Endpoint) up() {
	if e.checker != nil {
		return
	}
	if e.health.load() == Down {
		defer e.warm.signal()
	}
	e.health.set(Up, func() { e.tell(Event{Kind: HealthChanged, Health: Up}) })
}

// note counts a failure to connect, be it that the handshake failed, or another, and
// acts on what it means for the endpoint.
func (e *Endpoint) note(f *DialError, handshake bool) {
	failure, suppressed, due := e.failures.add(f.Reason, printable(f.Err.Error()))
	if !e.blamesHost(f.Reason) && !socket.OutOfDescriptors(f.Err) {
		if e.checker == nil {
			e.health.set(Down, func() { e.tell(Event{Kind: HealthChanged, Health: Down, Failure: failure}) })
		}
		e.warm.signal()
		if f.Reason != certs.ReasonLocalConfig {
			e.outlier.bad(handshake, failure)
		}
	}
	if due {
		e.report(f.Phase, f.Elapsed, failure, suppressed)
	}
}

// count counts a failure in a phase and reports it if that is due.
func (e *Endpoint) count(phase string, reason certs.Reason, err error) *Failure {
	failure, suppressed, due := e.failures.add(reason, printable(err.Error()))
	if due {
		e.report(phase, 0, failure, suppressed)
	}
	return failure
}

// report logs a failure and tells the observer of it.
func (e *Endpoint) report(phase string, elapsed time.Duration, f *Failure, suppressed uint64) {
	e.upstream.log.Warn("endpoint failed", "endpoint", e.Address(), "phase", phase, "reason", string(f.Reason),
		"error", f.Message, "elapsed", elapsed, "suppressed", suppressed)
	e.tell(Event{Kind: Failed, Health: e.health.load(), Failure: f, Count: suppressed + 1})
}

// blamesHost reports whether a failure says more about the host that a client
// asked for than about the endpoint. Clients must not be able to talk an
// endpoint down.
func (e *Endpoint) blamesHost(r certs.Reason) bool {
	switch r {
	case certs.ReasonNameMismatch, certs.ReasonUnrecognizedName, certs.ReasonLocalConfig:
		return e.fromHost
	}
	return false
}

func (e *Endpoint) tell(event Event) {
	event.Endpoint = e.Address()
	e.upstream.tell(event)
}

// NoteRequest counts an HTTP request sent to the endpoint.
func (e *Endpoint) NoteRequest() { e.requests.Add(1) }
