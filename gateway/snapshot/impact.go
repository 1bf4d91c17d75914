package snapshot

import (
	"slices"

	"github.com/drawbridge-gateway/drawbridge/bridge/upstream"
	"github.com/drawbridge-gateway/drawbridge/bridge/validity"
	"github.com/drawbridge-gateway/drawbridge/gateway/ordered"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

// Impact returns the losses of the upstreams of s, by name, when next becomes live after
// s. Its cost is proportional to the connections of the changed upstreams.
func (s *Snapshot) Impact(next *Snapshot) []*adminv1.UpstreamImpact {
	var out []*adminv1.UpstreamImpact
	for name, u := range ordered.Differ(s.upstreams, next.upstreams) {
		if u[0] == nil {
			continue
		}
		if i := u[0].impact(u[1]); i != nil {
			i.Name = name
			out = append(out, i)
		}
	}
	return out
}

// impact returns the losses of u when next, which may be nil, replaces it. It returns
// nil if u loses nothing.
func (u *liveUpstream) impact(next *liveUpstream) *adminv1.UpstreamImpact {
	var replaced *upstream.Upstream // nil: next keeps the live upstream
	if next == nil || next.back != u.back {
		replaced = u.live
	}
	var policy *validity.Policy // nil: connections are verified as before
	if next != nil {
		policy = next.policy
	}
	i := impactOf(u.tracker.Tally(replaced, policy))
	if replaced != nil {
		i.SessionsLost = int64(u.live.Sessions())
		for _, e := range u.live.Endpoints() {
			if next == nil || !slices.ContainsFunc(next.live.Endpoints(), e.SameAddress) {
				i.EndpointsGone++
			}
		}
	}
	if i.ConnectionsClosed+i.ConnectionsDrained+i.SessionsLost+int64(i.EndpointsGone) == 0 {
		return nil
	}
	return i
}

func impactOf(t validity.Tally) *adminv1.UpstreamImpact {
	return &adminv1.UpstreamImpact{ConnectionsClosed: int64(t.Closed), ConnectionsDrained: int64(t.Drained), RequestsInFlight: int64(t.Requests)}
}

// Validity returns the policy for the open connections of the listener's clients, or
// nil without TLS.
func (l *Listener) Validity() *validity.Policy { return l.validity }

// LosesResumption reports whether clients of l cannot resume their TLS sessions when next,
// which may be nil, replaces it.
func (l *Listener) LosesResumption(next *Listener) bool {
	for _, p := range l.uses.policies {
		kept := func(n *livePolicy) bool { return n.server == p.server }
		if p.server != nil && (next == nil || !slices.ContainsFunc(next.uses.policies, kept)) {
			return true
		}
	}
	return false
}
