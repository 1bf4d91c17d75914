package admin

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/drawbridge-gateway/drawbridge/gateway/invalid"
	"github.com/drawbridge-gateway/drawbridge/gateway/store"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

var waitTimeout = durationField{path: "options.wait_for.timeout", example: "30s", absent: 30 * time.Second, least: time.Second, most: 10 * time.Minute}

// waitFor checks options.wait_for, and returns how long to wait; 0: not at all.
func (s *Server) waitFor(o *adminv1.WriteOptions, bad *invalid.List) time.Duration {
	w := o.GetWaitFor()
	if w == nil {
		return 0
	}
	switch {
	case w.GetTarget() != adminv1.WaitTarget_WAIT_TARGET_FLEET:
		bad.Add("options.wait_for.target", "must be WAIT_TARGET_FLEET")
	case s.fleet == nil:
		bad.Add("options.wait_for", "must be left out: the gateway belongs to no fleet, because it runs without --store etcd")
	case o.GetDryRun():
		bad.Add("options.wait_for", "must be left out with dry_run, which changes no gateway")
	}
	return waitTimeout.parse(w.GetTimeout(), bad)
}

// errArrived reports that every connected gateway runs the awaited revision.
var errArrived = errors.New("every connected gateway runs the revision")

// retryAfter is how long await waits when the gateways cannot be read.
const retryAfter = 200 * time.Millisecond

// await waits until every connected gateway, including this one, runs the revision of a
// change, and adds the outcomes to the change. It returns no error if the wait ends early,
// because the revision is committed.
func (s *Server) await(ctx context.Context, change *adminv1.Change, within time.Duration) {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	ctx, release := s.untilStop(ctx)
	defer release()
	var last []*adminv1.Gateway
	var err error
	for ctx.Err() == nil && !errors.Is(err, errArrived) {
		err = s.fleet.WatchGateways(ctx, func(all []*adminv1.Gateway, _ int64) error {
			last = all
			// A gateway that has just started may not have reported itself yet.
			own := false
			for _, g := range all {
				if g.GetConnected() && g.GetRevision() < change.GetRevision() {
					return nil
				}
				own = own || g.GetConnected() && g.GetGatewayId() == s.fleet.ID()
			}
			if !own {
				return nil
			}
			return errArrived
		})
		if !errors.Is(err, errArrived) {
			select {
			case <-ctx.Done():
			case <-time.After(retryAfter):
			}
		}
	}
	if last == nil {
		change.Warnings = append(change.Warnings, &adminv1.Warning{Code: adminv1.WarningCode_WARNING_CODE_FLEET_UNREACHABLE, Field: "options.wait_for",
			Message: sanitize(fmt.Sprintf("revision %d is committed, but the gateways of the fleet cannot be listed: %v", change.GetRevision(), err), maxMessageText)})
	}
	for _, g := range last {
		change.Gateways = append(change.Gateways, gatewayOutcome(g, change.GetRevision()))
	}
}

// untilStop returns a context that also ends when the server stops. The caller must call release.
func (s *Server) untilStop(ctx context.Context) (_ context.Context, release func()) {
	ctx, cancel := context.WithCancel(ctx)
	var watching sync.WaitGroup
	watching.Go(func() {
		select {
		case <-s.stopping:
			cancel()
		case <-ctx.Done():
		}
	})
	return ctx, func() {
		cancel()
		watching.Wait()
	}
}

// gatewayOutcome returns the state of a revision at a gateway.
func gatewayOutcome(g *adminv1.Gateway, revision int64) *adminv1.GatewayOutcome {
	o := &adminv1.GatewayOutcome{GatewayId: g.GetGatewayId(), State: adminv1.GatewayState_GATEWAY_STATE_LIVE, Revision: g.GetRevision()}
	switch {
	case !g.GetConnected():
		o.State = adminv1.GatewayState_GATEWAY_STATE_DISCONNECTED
		o.Message = fmt.Sprintf("not connected to etcd since %s", g.GetLastSeenTime().AsTime().Format("2006-01-02 15:04:05 MST"))
	case g.GetRevision() < revision:
		o.State, o.Message = adminv1.GatewayState_GATEWAY_STATE_BEHIND, "the revision is not live yet"
		if g.GetError() != "" {
			o.Message = sanitize("cannot follow: "+g.GetError(), maxMessageText)
		}
	case g.GetProblemCount() > 0:
		o.State, o.Message = adminv1.GatewayState_GATEWAY_STATE_DEGRADED, fmt.Sprintf("%d resources are down", g.GetProblemCount())
		if len(g.GetProblems()) > 0 {
			p := g.GetProblems()[0]
			o.Message = sanitize(fmt.Sprintf("%s, such as %s %q: %s", o.Message, store.KindName(p.GetKind()), p.GetName(), p.GetReason()), maxMessageText)
		}
	}
	return o
}
