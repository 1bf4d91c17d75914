package gateway

import (
	"context"
	"slices"
	"strings"
	"sync"

	"github.com/drawbridge-gateway/drawbridge/gateway/diagnose"
	"github.com/drawbridge-gateway/drawbridge/gateway/invalid"
	"github.com/drawbridge-gateway/drawbridge/gateway/snapshot"
	"github.com/drawbridge-gateway/drawbridge/gateway/store"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

// probeChanged probes the upstreams that the plan changes, except their draining
// endpoints. If the server name comes from the request, it uses the host of a
// route to the upstream. The error has a fault for each endpoint that failed. For
// each upstream with too few working endpoints, its details hold the results of
// all endpoints of the upstream.
func (p *plan) probeChanged(ctx context.Context) error {
	type probed struct {
		name      string
		endpoints []snapshot.Endpoint
	}
	var upstreams []*probed
	var all []snapshot.Endpoint
	var lookups sync.WaitGroup // DNS lookups in progress
	for _, name := range p.next.Changed(p.live) {
		u := &probed{name: name}
		upstreams = append(upstreams, u)
		lookups.Go(func() {
			u.endpoints = slices.DeleteFunc(p.next.Endpoints(ctx, name, p.next.RequestHost(name)), func(e snapshot.Endpoint) bool { return e.Draining })
		})
	}
	lookups.Wait()
	for _, u := range upstreams {
		all = append(all, u.endpoints...)
	}
	results := diagnose.All(ctx, all).Results
	if err := ctx.Err(); err != nil {
		return invalid.Errorf(invalid.Unavailable, "", "the request ended while upstreams were probed: %v", err)
	}
	refusal := &invalid.Error{}
	for _, u := range upstreams {
		answer := &adminv1.ProbeUpstreamResponse{Results: results[:len(u.endpoints)]}
		results = results[len(u.endpoints):]
		at := p.draft.Path(store.Ref{Kind: adminv1.Kind_KIND_UPSTREAM, Name: u.name})
		faults := probeFaults(p.edit.RequireProbe, at, u.endpoints, answer)
		if len(faults) > 0 {
			refusal.Faults = append(refusal.Faults, faults...)
			refusal.Details = append(refusal.Details, answer)
		}
	}
	if len(refusal.Faults) > 0 {
		return refusal
	}
	return nil
}

// probeFaults returns a fault for each reason why too few endpoints work. It returns no
// faults if enough do.
func probeFaults(required adminv1.RequireProbe, at invalid.Path, endpoints []snapshot.Endpoint, answer *adminv1.ProbeUpstreamResponse) []invalid.Fault {
	var faults []invalid.Fault
	for i, r := range answer.GetResults() {
		if r.GetOutcome() != adminv1.ProbeOutcome_PROBE_OUTCOME_OK {
			faults = append(faults, invalid.Fault{
				Class: invalid.Unproven, Field: at.Join(endpoints[i].Target.Field),
				Message: strings.TrimPrefix(r.GetReason().String(), "REASON_") + ": " + r.GetExplanation(),
			})
		}
	}
	if required == adminv1.RequireProbe_REQUIRE_PROBE_ANY {
		if len(endpoints) == 0 {
			return []invalid.Fault{{Class: invalid.Unproven, Field: at.Field("endpoints"), Message: "all endpoints are draining, and draining endpoints are not probed"}}
		}
		if len(faults) < len(endpoints) {
			return nil
		}
	}
	return faults
}
