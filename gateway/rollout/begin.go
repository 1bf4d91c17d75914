package rollout

import (
	"errors"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/drawbridge-gateway/drawbridge/gateway/store"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

// Defaults of a rollout.
const (
	DefaultHold           = time.Minute
	DefaultMaxFailureRate = 0.01
)

// ErrNoCanary reports that no connected gateway can be a canary.
var ErrNoCanary = errors.New("selects no gateway that is connected to etcd; ListGateways shows which gateways are")

// Begin chooses the canaries among the gateways of a fleet, and returns the status of the
// new rollout. The options must be valid.
func Begin(o *adminv1.Rollout, all []*adminv1.Gateway, revision int64, now time.Time) (*adminv1.RolloutStatus, error) {
	var chosen []*adminv1.Gateway
	selector, err := store.ParseSelector(o.GetCanaries().GetSelector())
	if err != nil {
		return nil, err
	}
	for _, g := range all {
		if g.GetConnected() && selector.Matches(g.GetLabels()) {
			chosen = append(chosen, g)
		}
	}
	if percent := int(o.GetCanaries().GetPercent()); percent > 0 {
		rand.Shuffle(len(chosen), func(i, j int) { chosen[i], chosen[j] = chosen[j], chosen[i] })
		chosen = chosen[:(len(chosen)*percent+99)/100]
	}
	if len(chosen) == 0 {
		return nil, ErrNoCanary
	}
	slices.SortFunc(chosen, func(a, b *adminv1.Gateway) int { return strings.Compare(a.GetGatewayId(), b.GetGatewayId()) })
	out := &adminv1.RolloutStatus{
		State: adminv1.RolloutState_ROLLOUT_STATE_IN_PROGRESS, Revision: revision, StartTime: timestamppb.New(now),
		Hold: durationpb.New(DefaultHold), MaxFailureRate: DefaultMaxFailureRate,
	}
	if o.GetHold() != nil {
		out.Hold = o.GetHold()
	}
	if o.MaxFailureRate != nil {
		out.MaxFailureRate = o.GetMaxFailureRate()
	}
	for _, g := range chosen {
		out.Canaries = append(out.Canaries, &adminv1.Canary{GatewayId: g.GetGatewayId(), ProcessId: g.GetProcessId()})
	}
	return out, nil
}

// IsCanary reports whether a gateway is a canary of a rollout.
func IsCanary(r *adminv1.RolloutStatus, id string) bool {
	return slices.ContainsFunc(r.GetCanaries(), func(c *adminv1.Canary) bool { return c.GetGatewayId() == id })
}
