package l7

import (
	"strconv"
	"time"

	"github.com/drawbridge-gateway/drawbridge/bridge/l7/policy"
	"github.com/drawbridge-gateway/drawbridge/bridge/limit"
)

// limited answers a request that exceeds one of the listener's limits, and
// reports whether it did. The end of the response decreases the counts.
func (q *request) limited() bool {
	limits := &q.table.Limits
	if *limits == (limit.Limits{}) {
		return false
	}
	exceeded := q.server.limiter.Enter(&q.pass, q.Facts.Address, q.Start, limits)
	if exceeded.Kind == limit.None {
		return false
	}
	a := policy.ServiceUnavailable
	if exceeded.Kind.PerClient() {
		a = policy.TooManyRequests
	}
	a.RetryAfter = strconv.Itoa(max(int((exceeded.Wait+time.Second-1)/time.Second), 1))
	q.Answer(a)
	return true
}
