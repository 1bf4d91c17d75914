package exchange

import (
	"cmp"
	"errors"
	"math/rand/v2"
	"slices"
	"time"
)

// A Retry says when a request is retried. Each try sends it to the first endpoint
// that accepts a connection, and prefers endpoints that were not tried yet. The zero
// Retry retries once after a timeout, and sets no timeout for a try.
//
// An upgrade is never retried, nor is a request once part of its response was
// forwarded. A request that the upstream may have acted upon is retried only if its
// method is idempotent, or one of Methods.
type Retry struct {
	Attempts int // maximum number of tries, including the first; 0: 2

	ConnectFailure bool // no endpoint accepted a connection
	Reset          bool // the connection or stream ended before the response began
	RefusedStream  bool // the upstream said that it has not acted upon the request

	// Codes are the status codes of responses that are retried. A response that
	// consists of the gRPC status UNAVAILABLE counts as 503.
	Codes []int

	Methods []string // methods that are retried like idempotent ones

	// PerTry bounds the wait for the response's head in each try, once all of the
	// request's body has arrived from the client. 0: no limit.
	PerTry time.Duration

	MaxBody int           // maximum bytes of a body that are kept for resending; 0: 65536; less than 0: no bytes
	Backoff time.Duration // pause before the second try, doubled before each further one; 0: 25ms
}

// maxBackoff bounds a pause, however often it was doubled.
const maxBackoff = 10 * time.Second

func (r *Retry) attempts() int { return cmp.Or(r.Attempts, 2) }
func (r *Retry) maxBody() int  { return max(cmp.Or(r.MaxBody, 64<<10), 0) }

// pause returns how long to wait after the given number of tries. It subtracts a
// random part of up to half, so that requests that failed together are not retried
// together.
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
	errTryDeadline = errors.New("the upstream sent no response header within the timeout of a try")

	// errDiscarded ends a try whose response is not forwarded.
	errDiscarded = errors.New("the request is being retried")
)

// repeats reports whether a request of a method may be sent twice.
func (r *Retry) repeats(method string) bool {
	return isIdempotent(method) || slices.Contains(r.Methods, method)
}

// isIdempotent reports whether sending a request twice has the effect of sending
// it once (RFC 9110, section 9.2.2).
func isIdempotent(method string) bool {
	switch method {
	case "GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE":
		return true
	}
	return false
}
