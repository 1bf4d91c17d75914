package snapshot

import (
	"time"

	"github.com/drawbridge-gateway/drawbridge/bridge/l7/policy"
	"github.com/drawbridge-gateway/drawbridge/bridge/upstream"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

var policies = map[adminv1.BalancingPolicy]upstream.Policy{
	adminv1.BalancingPolicy_BALANCING_POLICY_LEAST_REQUESTS:  upstream.LeastRequests,
	adminv1.BalancingPolicy_BALANCING_POLICY_RANDOM:          upstream.Random,
	adminv1.BalancingPolicy_BALANCING_POLICY_CONSISTENT_HASH: upstream.ConsistentHash,
}

// maxSlowStart bounds slow_start: a longer time probably has a wrong unit.
const maxSlowStart = time.Hour

// balancing sets the balancing policy in o.
func (s upstreamScope) balancing(msg *adminv1.Upstream, o *upstream.Options) {
	b := msg.GetBalancing()
	if enum(b.GetPolicy(), adminv1.BalancingPolicy_name) {
		o.Policy = policies[b.GetPolicy()]
	}
	o.SlowStart = s.duration("balancing.slow_start", b.GetSlowStart())
	if o.SlowStart > maxSlowStart {
		s.Add("balancing.slow_start", "is %v; it must be at most %v", o.SlowStart, maxSlowStart)
	}
	hashes := b.GetPolicy() == adminv1.BalancingPolicy_BALANCING_POLICY_CONSISTENT_HASH
	switch h := b.GetHash(); {
	case h == nil && hashes:
		s.Add("balancing.hash", "must be set where policy is BALANCING_POLICY_CONSISTENT_HASH: client_address, header or cookie")
	case h != nil && !hashes:
		s.Add("balancing.hash", "must be left out unless policy is BALANCING_POLICY_CONSISTENT_HASH: only that policy hashes")
	case h != nil:
		o.Hash = s.hashKey(msg, h)
	}
}

// hashKey checks and returns the key that is hashed.
func (s upstreamScope) hashKey(msg *adminv1.Upstream, h *adminv1.HashKey) (k upstream.HashKey) {
	switch kind := h.GetKind().(type) {
	case *adminv1.HashKey_ClientAddress:
		k.ClientAddress = true
	case *adminv1.HashKey_Header:
		k.Header = kind.Header
		if err := policy.CheckHashHeader(k.Header); err != nil {
			s.Add("balancing.hash.header", "%v", err)
		}
	case *adminv1.HashKey_Cookie:
		k.Cookie = kind.Cookie
		if err := policy.CheckHashCookie(k.Cookie); err != nil {
			s.Add("balancing.hash.cookie", "%v", err)
		}
	default:
		s.Add("balancing.hash", "must be client_address, header or cookie")
	}
	if msg.GetPassthrough() != nil && !k.ClientAddress {
		s.Add("balancing.hash", "must be client_address with passthrough: the gateway cannot read the requests")
	}
	return k
}

// maxLimit bounds every limit: a larger number is a mistake.
const maxLimit = 1_000_000

// limits checks and returns an upstream's limits.
func (s upstreamScope) limits(msg *adminv1.Upstream) upstream.Limits {
	l := msg.GetLimits()
	out := upstream.Limits{
		Requests:               s.limit("limits.requests", l.GetRequests(), maxLimit),
		RequestsPerEndpoint:    s.limit("limits.requests_per_endpoint", l.GetRequestsPerEndpoint(), maxLimit),
		Connections:            s.limit("limits.connections", l.GetConnections(), maxLimit),
		ConnectionsPerEndpoint: s.limit("limits.connections_per_endpoint", l.GetConnectionsPerEndpoint(), maxLimit),
		Pending:                s.limit("limits.pending", l.GetPending(), maxLimit),
		PendingTimeout:         s.duration("limits.pending_timeout", l.GetPendingTimeout()),
	}
	limited := l.GetRequests() > 0 || l.GetRequestsPerEndpoint() > 0 || l.GetConnections() > 0 || l.GetConnectionsPerEndpoint() > 0
	if l.GetPending() > 0 && !limited {
		s.Add("limits.pending", "must be left out where no limit is set: no request would wait")
	}
	if l.GetPendingTimeout() != nil && l.GetPending() == 0 {
		s.Add("limits.pending_timeout", "must be left out where pending is left out: no request waits")
	}
	warm := msg.GetPool().GetWarm()
	if most := l.GetConnectionsPerEndpoint(); most > 0 && warm > most {
		s.Add("pool.warm", "is %d; it must be at most limits.connections_per_endpoint, which is %d", warm, most)
	}
	if most := l.GetConnections(); most > 0 && warm > most {
		s.Add("pool.warm", "is %d; it must be at most limits.connections, which is %d", warm, most)
	}
	return out
}

// warnOfKeys warns of upstreams that choose an endpoint by a header or cookie, which
// a TCP connection does not have.
func (s listenerScope) warnOfKeys(l *Listener) {
	warned := map[*liveUpstream]bool{}
	for _, u := range l.uses.upstreams() {
		h := u.msg.GetBalancing().GetHash()
		if warned[u] || h.GetHeader() == "" && h.GetCookie() == "" {
			continue
		}
		warned[u] = true
		s.Warn(warnNoEffect, "upstream", "upstream %q chooses an endpoint by a request's header or cookie, which the connections of this listener do not have: for them it chooses at random", u.msg.GetName())
	}
}
