package l7

import (
	"cmp"
	"errors"
	"io"
	"math/rand/v2"
	"slices"
	"syscall"
	"time"

	"github.com/drawbridge-gateway/drawbridge/bridge/l7/http1"
	"github.com/drawbridge-gateway/drawbridge/bridge/l7/http2"
	"github.com/drawbridge-gateway/drawbridge/bridge/l7/wire"
)

// A Retry says when a request is tried again. In a try it is sent to the first
// endpoint that can be connected to; each goes to endpoints that were not tried
// yet, as long as there are some. The zero Retry makes a second try of what timed
// out, and does not time it.
//
// Nothing is tried again of which some of the response was passed on, nor an
// upgrade. A request that the upstream may have acted upon is if its method is
// idempotent, or one of Methods.
type Retry struct {
	Attempts int // most tries, the first included; 0: 2

	ConnectFailure bool // no endpoint could be connected to
	Reset          bool // the connection, or stream, ended before the response began
	RefusedStream  bool // the upstream said that it has not acted upon the request

	// Codes are those of responses that are tried again. A response that is
	// nothing but a gRPC status of UNAVAILABLE counts as 503.
	Codes []int

	Methods []string // that are tried again like idempotent ones

	// PerTry is how long the response's head may take in each try, once all of
	// the request's body has come from the client. 0: no limit.
	PerTry time.Duration

	MaxBody int           // most bytes of a body that are kept to be sent again; 0: 65536; less than 0: none
	Backoff time.Duration // before the second try, twice as long before each further one; 0: 25ms
}

// maxBackoff bounds a pause, however often it was doubled.
const maxBackoff = 10 * time.Second

func (r *Retry) attempts() int { return cmp.Or(r.Attempts, 2) }
func (r *Retry) maxBody() int  { return max(cmp.Or(r.MaxBody, 64<<10), 0) }

// pause returns how long to wait after so many tries: up to half less than for
// others, so that those that failed together do not come back together.
func (r *Retry) pause(tries int) time.Duration {
	d := cmp.Or(r.Backoff, 25*time.Millisecond)
	for ; tries > 1 && d < maxBackoff; tries-- {
		d *= 2
	}
	d = min(d, maxBackoff)
	return d - rand.N(d/2+1)
}

var (
	// errTryDeadline ends a try for which Retry.PerTry ran out.
	errTryDeadline = errors.New("the upstream's response header did not come in the time of a try")

	// errDiscarded ends a try whose response is not passed on.
	errDiscarded = errors.New("the request is tried again")
)

// carry sends the request until there is a response to be passed on, and returns
// what that is read from.
func (x *exchange) carry() (back, error) {
	x.choose()
	for {
		b, err := x.walk()
		pause, again := x.again(b, err)
		if !again {
			x.endRetries()
			return b, err
		}
		if b != nil {
			x.discard(b)
		}
		x.turn.Leave() // others may have its place meanwhile
		if !x.sleep(pause) {
			x.endRetries()
			return nil, cmp.Or(err, errDiscarded)
		}
		x.failure = err
		x.back.options.Upstream.Retries().Note()
	}
}

// again decides whether a try that came to err, or to the response whose head b
// has given, is followed by another after a pause. If it is, the upload of the
// body was halted.
func (x *exchange) again(b back, err error) (pause time.Duration, again bool) {
	r := x.retry
	if r == nil || x.tries >= r.attempts() || x.hinted || x.ended() {
		return 0, false
	}
	wanted, harmless := x.retriable(b, err)
	if !wanted || !harmless && !r.repeats(x.facts.Request.Method) {
		return 0, false
	}
	if pause = r.pause(x.tries); !x.hasTime(pause) || x.spent() {
		return 0, false
	}
	if !x.retrying {
		if !x.back.options.Upstream.Retries().Take() {
			return 0, false
		}
		x.retrying = true
	}
	return pause, x.replay == nil || x.replay.halt()
}

// endRetries gives back what the budget has for the exchange.
func (x *exchange) endRetries() {
	if x.retrying {
		x.retrying = false
		x.back.options.Upstream.Retries().Give()
	}
}

// retriable reports whether what a try came to is to be tried again, and whether
// that is so whatever the method, because the upstream has not acted upon the
// request.
func (x *exchange) retriable(b back, err error) (wanted, harmless bool) {
	r := x.retry
	switch {
	case b != nil:
		return slices.Contains(r.Codes, x.outcome()), false
	case err == errTryDeadline:
		return true, !x.exposed
	case isUnsent(err):
		return r.ConnectFailure, true
	case errors.Is(err, http2.ErrUnprocessed), errors.Is(err, wire.ErrStale):
		return r.RefusedStream, true
	case isReset(err):
		return r.Reset, false
	}
	return false, false
}

// outcome returns the response's code, for gRPC that of what it means.
func (x *exchange) outcome() int {
	if r := &x.response; x.grpc && r.Status == 200 && r.Length == 0 {
		if status, _ := r.Fields.Get("Grpc-Status"); status == "14" {
			return 503
		}
	}
	return x.response.Status
}

// isReset reports whether a try failed because its connection or stream ended.
func isReset(err error) bool {
	var two *http2.Error
	if errors.As(err, &two) {
		return two.Remote || two.Err != nil
	}
	var malformed *http1.Error
	if errors.As(err, &malformed) {
		return false
	}
	return errors.Is(err, errNoResponse) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) ||
		errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
}

// isRefusal reports whether a server refused a stream, and not all that come.
func isRefusal(err error) bool {
	var e *http2.Error
	return errors.As(err, &e) && e.Remote && !e.Connection && e.Unprocessed
}

// repeats reports whether a request of a method may be sent twice.
func (r *Retry) repeats(method string) bool {
	return isIdempotent(method) || slices.Contains(r.Methods, method)
}

// isIdempotent reports whether to send a request twice does what to send it once
// does (RFC 9110, section 9.2.2).
func isIdempotent(method string) bool {
	switch method {
	case "GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE":
		return true
	}
	return false
}

// spent reports whether the request cannot be sent from its beginning any more.
func (x *exchange) spent() bool {
	if x.replay != nil {
		return !x.replay.whole()
	}
	return x.touched.Load()
}

// maxDiscard is how much of a response that is not passed on is read for its
// connection to be kept.
const maxDiscard = 64 << 10

// discard ends a try whose response is not passed on. If all of it is here its
// connection is kept.
func (x *exchange) discard(b back) {
	clean := false
	for n := 0; x.sent.Load() && n < maxDiscard && b.Buffered(); {
		p, err := b.Read()
		if clean = err == io.EOF; err != nil {
			break
		}
		n += len(p)
	}
	if !clean {
		x.abandon(b, errDiscarded)
		return
	}
	if x.replay != nil {
		x.replay.leave()
	}
	x.detach()
	b.Done()
}

// abandon ends what is left of a try with b, so that the request can be sent
// again, if that is possible at all.
func (x *exchange) abandon(b back, cause error) {
	if x.replay == nil {
		x.drop(b, cause)
		return
	}
	b.Abort(cause)
	x.release()
	x.replay.leave()
	x.detach()
	b.Done()
}

// sleep waits for a time, and reports false if the exchange ended before.
func (x *exchange) sleep(d time.Duration) bool {
	ctx, done := x.context()
	defer done()
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return !x.ended()
	case <-ctx.Done():
		return false
	}
}
