package gateway

import (
	"context"
	"errors"
	"strconv"
	"strings"

	"github.com/drawbridge-gateway/drawbridge/certs"
	"github.com/drawbridge-gateway/drawbridge/gateway/fleet"
	"github.com/drawbridge-gateway/drawbridge/gateway/invalid"
	"github.com/drawbridge-gateway/drawbridge/gateway/listeners"
	"github.com/drawbridge-gateway/drawbridge/gateway/revisions"
	"github.com/drawbridge-gateway/drawbridge/gateway/rollout"
	"github.com/drawbridge-gateway/drawbridge/gateway/snapshot"
	"github.com/drawbridge-gateway/drawbridge/gateway/store"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

// rollouts begins and ends rollouts for a writer.
type rollouts struct{ w *writer }

// stage commits a plan as a rollout. The caller holds the writer's lock. Even if this gateway is
// a canary, it makes the revision live by following the fleet.
func (r rollouts) stage(ctx context.Context, p *plan, result *store.Result) (*store.Result, error) {
	if r.w.fleet == nil {
		return nil, invalid.Errorf(invalid.Argument, "options.rollout", "must be left out: the gateway belongs to no fleet")
	}
	record := revisions.NewRecord(p.draft, p.edit, r.w.now(), fileKeys(p.live))
	if err := r.w.fleet.Stage(ctx, p.draft, record, p.edit.Rollout); err != nil {
		return nil, r.w.storeFault(err)
	}
	r.w.log.Info("rollout committed", "revision", p.draft.State().Revision(), "canaries", len(record.Pending.GetRollout().GetCanaries()), "comment", p.edit.Comment)
	result.Pending = record.Pending
	return result, nil
}

// revert ends a rollout because a caller rolls it back. This gateway may not run the
// revision, so the fleet commits the rollback.
func (r rollouts) revert(ctx context.Context, p *pending, e store.Edit) (*store.Result, error) {
	base := r.w.State()
	draft, err := r.w.fleet.Revert(ctx, p.GetRevision(), e)
	if err != nil {
		return nil, rolloutFault(err)
	}
	live := r.w.live.Load()
	return &store.Result{Base: base, State: draft.State(), Revision: draft.State().Revision(), Changes: draft.Changes(), Present: live.Present}, nil
}

// promote ends a rollout because a caller confirms it.
func (r rollouts) promote(ctx context.Context, n int64, o store.Origin) (*adminv1.Revision, error) {
	confirmed, err := r.w.fleet.Promote(ctx, n, o.Principal)
	if err != nil {
		return nil, rolloutFault(err)
	}
	return confirmed, nil
}

// rolloutFault returns the fault of a rollout that a caller could not end.
func rolloutFault(err error) error {
	switch {
	case errors.Is(err, fleet.ErrBehind):
		return invalid.Errorf(invalid.Conflict, "", "the rollout ended at the same time: read the configuration, and try again")
	case fleet.MayTakeEffect(err):
		return invalid.Errorf(invalid.Unavailable, "", "%v; the rollout may still end: read the configuration before you try again", err)
	}
	return invalid.Errorf(invalid.Unavailable, "", "the rollout could not be ended: %v", err)
}

// trafficOf returns the counts of every listener and endpoint of a gateway.
func trafficOf(g *Gateway) rollout.Source {
	return func(yield func(of any, c rollout.Counts)) { countTraffic(g.listeners, g.live.Load(), yield) }
}

func countTraffic(all *listeners.Set, snap *snapshot.Snapshot, yield func(of any, c rollout.Counts)) {
	all.Each(func(r *listeners.Running) { yield(r, listenerCounts(r)) })
	if snap == nil { // the gateway starts
		return
	}
	for _, u := range snap.Upstreams() {
		for _, e := range u.Live.Counts() {
			c := rollout.Counts{Dials: e.Connects.Count}
			c.DialsFailed = byReason(&c, "dial ", e.Failures)
			c.Dials = max(c.Dials, e.Made+c.DialsFailed)
			yield(e.Of, c)
		}
	}
}

func listenerCounts(r *listeners.Running) (c rollout.Counts) {
	if r.HTTP == nil {
		s := r.TCP.Stats()
		failed := byReason(&c, "client ", s.HandshakeFailures)
		c.Connections, c.ConnectionsFailed = s.Accepted, failed+s.NoUpstream+s.DialFailures
		c.Fail("client without a route", s.NoUpstream)
		c.Fail("client without an endpoint", s.DialFailures)
		return c
	}
	s := r.HTTP.Stats()
	failed := byReason(&c, "client ", s.HandshakeFailures)
	c.Connections, c.ConnectionsFailed = s.HandshakesFull+s.HandshakesResumed+failed, failed
	for code, n := range s.Requests {
		c.Requests += n
		if code >= 500 {
			c.RequestsFailed += n
			c.Fail("request "+strconv.Itoa(code), n)
		}
	}
	return c
}

// byReason adds failures to the counts, and returns their number.
func byReason(c *rollout.Counts, prefix string, failures map[certs.Reason]uint64) (total uint64) {
	for reason, n := range failures {
		total += n
		c.Fail(prefix+strings.TrimPrefix(snapshot.Reason(reason).String(), "REASON_"), n)
	}
	return total
}
