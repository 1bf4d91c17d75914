package snapshot

import (
	"regexp"
	"slices"
	"time"

	"github.com/drawbridge-gateway/drawbridge/bridge/l7/exchange"
	"github.com/drawbridge-gateway/drawbridge/bridge/upstream"
	"github.com/drawbridge-gateway/drawbridge/gateway/invalid"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

// method is a token (RFC 9110, section 5.6.2).
var method = regexp.MustCompile("^[!#$%&'*+.^_`|~0-9A-Za-z-]{1,32}$")

// retry checks a route's retry settings and returns them in l7's form. It returns
// nil if f has none.
func (s routeScope) retry(f *adminv1.Forward) *exchange.Retry {
	msg := f.GetRetry()
	if msg == nil {
		return nil
	}
	const at = invalid.Path("forward.retry")
	r := &exchange.Retry{
		Attempts: s.count(at.Field("attempts"), msg.Attempts, 10),
		PerTry:   s.duration(at.Field("per_try_timeout"), msg.GetPerTryTimeout()),
		Methods:  msg.GetMethods(),
		MaxBody:  s.countOrOff(at.Field("max_body_bytes"), msg.MaxBodyBytes, 1<<20),
		Backoff:  s.duration(at.Field("backoff"), msg.GetBackoff()),
	}
	if r.Backoff > 10*time.Second {
		s.Add(at.Field("backoff"), "is %v; it must be at most 10s", r.Backoff)
	}
	for _, all := range []struct {
		name string
		d    time.Duration
	}{{"timeout", f.GetTimeout().AsDuration()}, {"total_timeout", f.GetTotalTimeout().AsDuration()}} {
		if all.d > 0 && r.PerTry >= all.d {
			s.Add(at.Field("per_try_timeout"), "is %v; it must be less than forward.%s, which bounds all tries together", r.PerTry, all.name)
		}
	}
	on := msg.GetOn()
	if len(on) == 0 {
		on = allConditions
	}
	for i, c := range on {
		at := at.Field("on").Index(i)
		switch {
		case slices.Contains(on[:i], c):
			s.Add(at, "is %v, which is in the list twice", c)
		case c == adminv1.RetryCondition_RETRY_CONDITION_CONNECT_FAILURE:
			r.ConnectFailure = true
		case c == adminv1.RetryCondition_RETRY_CONDITION_RESET:
			r.Reset = true
		case c == adminv1.RetryCondition_RETRY_CONDITION_REFUSED_STREAM:
			r.RefusedStream = true
		case c == adminv1.RetryCondition_RETRY_CONDITION_UNSPECIFIED:
			s.Add(at, "must be RETRY_CONDITION_CONNECT_FAILURE, RETRY_CONDITION_RESET or RETRY_CONDITION_REFUSED_STREAM")
		}
	}
	for i, c := range msg.GetCodes() {
		at := at.Field("codes").Index(i)
		switch {
		case c < 200 || c > 599:
			s.Add(at, "is %d; it must be from 200 to 599", c)
		case slices.Contains(msg.GetCodes()[:i], c):
			s.Add(at, "is %d, which is in the list twice", c)
		}
		r.Codes = append(r.Codes, int(c))
	}
	for i, m := range r.Methods {
		at := at.Field("methods").Index(i)
		switch {
		case !method.MatchString(m):
			s.Add(at, "is %.100q, which is not a method; write one such as POST", m)
		case m == "CONNECT":
			s.Add(at, "is CONNECT, which is never retried")
		case slices.Contains(r.Methods[:i], m):
			s.Add(at, "is %q, which is in the list twice", m)
		}
	}
	return r
}

// attempts returns the bounds of a TCP route's checked retries.
func attempts(msg *adminv1.Retry) upstream.Attempts {
	return upstream.Attempts{MaxEndpoints: int(msg.GetAttempts()), PerEndpoint: msg.GetPerTryTimeout().AsDuration()}
}

var allConditions = []adminv1.RetryCondition{
	adminv1.RetryCondition_RETRY_CONDITION_CONNECT_FAILURE,
	adminv1.RetryCondition_RETRY_CONDITION_RESET,
	adminv1.RetryCondition_RETRY_CONDITION_REFUSED_STREAM,
}

// retryBudget returns an upstream's retry budget; nil means the default.
func (s upstreamScope) retryBudget(msg *adminv1.RetryBudget) *upstream.RetryBudget {
	if msg == nil {
		return nil
	}
	const at = invalid.Path("limits.retry_budget")
	b := &upstream.RetryBudget{Percent: 20, Min: 3}
	if msg.Percent != nil {
		b.Percent = s.limit(at.Field("percent"), msg.GetPercent(), 100)
	}
	if msg.MinRetries != nil {
		b.Min = s.limit(at.Field("min_retries"), msg.GetMinRetries(), 1_000_000)
	}
	return b
}
