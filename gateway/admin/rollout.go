package admin

import (
	"context"
	"fmt"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/drawbridge-gateway/drawbridge/gateway/invalid"
	"github.com/drawbridge-gateway/drawbridge/gateway/rollout"
	"github.com/drawbridge-gateway/drawbridge/gateway/store"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

var rolloutHold = durationField{path: "options.rollout.hold", example: "60s", absent: rollout.DefaultHold, least: time.Second, most: 24 * time.Hour}

// rollout checks options.rollout and returns it.
func (s *Server) rollout(o *adminv1.WriteOptions, bad *invalid.List) *adminv1.Rollout {
	r := o.GetRollout()
	if r == nil {
		return nil
	}
	switch {
	case s.fleet == nil:
		bad.Add("options.rollout", "must be left out: the gateway belongs to no fleet, because it runs without --store etcd")
	case o.GetConfirmWithin() != nil:
		bad.Add("options.rollout", "cannot be combined with confirm_within: Confirm ends a rollout early, and Rollback ends it too")
	}
	rolloutHold.parse(r.GetHold(), bad)
	if rate := r.GetMaxFailureRate(); !(rate >= 0 && rate <= 1) {
		bad.Add("options.rollout.max_failure_rate", "is %v; it must be from 0 to 1, such as 0.01 for 1%%", rate)
	}
	switch c := r.GetCanaries().GetGateways().(type) {
	case *adminv1.Canaries_Selector:
		if c.Selector == "" {
			bad.Add("options.rollout.canaries.selector", "must not be empty; for all gateways set percent to 100")
		} else if _, err := store.ParseSelector(c.Selector); err != nil {
			bad.Add("options.rollout.canaries.selector", "%v", err)
		}
	case *adminv1.Canaries_Percent:
		if c.Percent < 1 || c.Percent > 100 {
			bad.Add("options.rollout.canaries.percent", "is %d; it must be from 1 to 100", c.Percent)
		}
	default:
		bad.Add("options.rollout.canaries", "must be set, to a selector of labels such as \"zone=a\", or to a percent of the gateways")
	}
	return r
}

// awaitRollout waits until the rollout of a change ends, and adds the end to the change. It
// returns an error if the fleet rolled back.
func (s *Server) awaitRollout(ctx context.Context, change *adminv1.Change) error {
	waiting, release := s.untilStop(ctx)
	defer release()
	end, err := s.fleet.AwaitRollout(waiting, change.GetRevision())
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case err != nil: // the server stops
		change.Rollout = change.GetPending().GetRollout()
		return nil
	case end.GetState() == adminv1.RolloutState_ROLLOUT_STATE_PROMOTED:
		change.Pending, change.Rollout = nil, end
		return nil
	}
	message := fmt.Sprintf("revision %d was rolled back: %s", change.GetRevision(), end.GetMessage())
	st := statusWith(codes.FailedPrecondition, "ROLLED_BACK", sanitize(message, maxMessageText))
	end.Message = "" // it is the message of the status
	if full, err := st.WithDetails(end); err == nil && wireSize(full) <= maxStatus {
		return full.Err()
	}
	return st.Err()
}
