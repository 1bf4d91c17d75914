package snapshot

import (
	"cmp"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/drawbridge-gateway/drawbridge/bridge/upstream"
	"github.com/drawbridge-gateway/drawbridge/bridge/validity"
	"github.com/drawbridge-gateway/drawbridge/certs"
	"github.com/drawbridge-gateway/drawbridge/gateway/invalid"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

// defaultGrace is how long requests in progress may continue on a connection that no
// longer verifies.
const defaultGrace = 30 * time.Second

var revalidationActions = map[adminv1.RevalidationAction]validity.Action{
	adminv1.RevalidationAction_REVALIDATION_ACTION_UNSPECIFIED: validity.Drain,
	adminv1.RevalidationAction_REVALIDATION_ACTION_DRAIN:       validity.Drain,
	adminv1.RevalidationAction_REVALIDATION_ACTION_CLOSE:       validity.Close,
	adminv1.RevalidationAction_REVALIDATION_ACTION_REPORT:      validity.Report,
}

// revalidation returns the policy for open connections. The caller sets its Judge.
func (s *scope) revalidation(r *adminv1.Revalidation) *validity.Policy {
	const at = invalid.Path("tls.revalidation")
	p := &validity.Policy{Grace: cmp.Or(s.duration(at.Field("grace"), r.GetGrace()), defaultGrace)}
	if enum(r.GetAction(), adminv1.RevalidationAction_name) {
		p.Action = revalidationActions[r.GetAction()]
	}
	if r.GetGrace() != nil && p.Action != validity.Drain {
		s.Add(at.Field("grace"), "must be left out where action is %v: only REVALIDATION_ACTION_DRAIN lets a connection continue for a while", r.GetAction())
	}
	return p
}

// A requirement holds an upstream's requirements for its endpoints' certificates
// in one revision. When the revision becomes live, the Verifier of the upstream's
// TLS clients applies them without a new handshake.
type requirement struct {
	verifier *certs.Verifier     // verifier of the TLS clients; nil without TLS
	requires *certs.Requirements // nil without TLS
	policy   *validity.Policy    // policy for open connections; never nil
}

// require builds the requirement of u. It reuses equal parts of before.
func (s upstreamScope) require(u *liveUpstream, o *certs.ClientOptions, before requirement) {
	policy := s.revalidation(u.msg.GetTls().GetRevalidation())
	if lacksTrust(o) {
		u.requirement = requirement{policy: policy}
		return
	}
	r, err := certs.NewRequirements(*o)
	if err != nil {
		s.addFaults("tls", err)
		return
	}
	if r.Equal(before.requires) {
		r = before.requires // keeps the chains that are known to pass
	}
	policy.Verifier = r
	if before.policy != nil && *before.policy == *policy {
		policy = before.policy
	}
	u.requirement = requirement{certs.NewVerifier(r), r, policy}
	o.Verifier = u.verifier
}

// inForce puts the requirement in force.
func (u *liveUpstream) inForce() {
	if u.verifier != nil && u.verifier.Requirements() != u.requires {
		u.verifier.Require(u.requires)
	}
	u.tracker.Peers().Require(u.policy)
}

// planned returns a client that verifies as c will verify once u is live.
func (u *liveUpstream) planned(c *certs.Client) *certs.Client {
	if c == nil || u.verifier == nil || u.verifier.Requirements() == u.requires {
		return c
	}
	return c.With(u.requires)
}

// keeps reports whether next can use the live object of u: everything except
// the requirement is equal.
func (u *liveUpstream) keeps(next *liveUpstream) bool {
	return u != nil && u.down == "" && u.uses.certificate == next.uses.certificate && u.uses.proxy.equal(next.uses.proxy) &&
		sameInputs(withoutRequirement(u.msg), withoutRequirement(next.msg))
}

// withoutRequirement returns the message without the fields of the requirement.
// The server name stays, because it is also sent.
func withoutRequirement(msg *adminv1.Upstream) *adminv1.Upstream {
	c := proto.Clone(msg).(*adminv1.Upstream)
	if t := c.GetTls(); t != nil {
		t.TrustBundles, t.Verification, t.VerifyDepth, t.VerifyName = nil, 0, nil, ""
		t.SubjectAltNames, t.SpkiPins, t.Revalidation = nil, nil, nil
	}
	return c
}

// newTracker returns the Tracker of an upstream's connections.
func (j *job) newTracker(name string) *upstream.Tracker {
	return upstream.NewTrackerOf(validity.New(validity.Options{
		Now:    j.now,
		Logger: j.log.With("upstream", name),
		Observe: func(f validity.Finding) {
			if j.observer != nil {
				j.observer(upstream.Event{
					Upstream: name, Kind: upstream.Unverified, Count: uint64(f.Count),
					Failure: &upstream.Failure{Reason: f.Reason, Message: f.Message(), Time: time.Now()},
				})
			}
		},
	}), j.trackers)
}
