package l7

import (
	"errors"
	"strconv"
	"time"

	"github.com/drawbridge-gateway/drawbridge/bridge/l7/policy"
	"github.com/drawbridge-gateway/drawbridge/bridge/limit"
)

// errBodyTooLarge ends an exchange whose request's body is larger than
// Table.MaxBody.
var errBodyTooLarge = errors.New("it is larger than the listener takes")

// limited answers a request that is over one of the listener's limits, and
// reports whether it did. What it counts is given back as the response ends.
func (x *exchange) limited() bool {
	limits := &x.table.Limits
	if *limits == (limit.Limits{}) {
		return false
	}
	over := x.server.limiter.Enter(&x.pass, x.facts.Address, x.start, limits)
	if over.Kind == limit.None {
		return false
	}
	a := policy.ServiceUnavailable
	if over.Kind.PerClient() {
		a = policy.TooManyRequests
	}
	a.RetryAfter = strconv.Itoa(max(int((over.Wait+time.Second-1)/time.Second), 1))
	x.answer(a)
	return true
}

// tooLong notes that n more bytes of the request's body have come, and reports
// whether it is longer than it may be.
func (x *exchange) tooLong(n int) bool {
	x.noted.fromClient += uint64(n)
	return x.table.MaxBody > 0 && x.noted.fromClient > uint64(x.table.MaxBody)
}
