package admin

import (
	"context"
	"maps"
	"slices"
	"sort"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	"github.com/drawbridge-gateway/drawbridge/gateway/invalid"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

// A Fleet knows the gateways that share the configuration.
type Fleet interface {
	// ID returns the ID of this gateway.
	ID() string

	// Gateways returns the gateways by ID, and the latest revision.
	Gateways(context.Context) ([]*adminv1.Gateway, int64, error)

	// WatchGateways calls changed with the gateways and the latest revision, at once and
	// whenever they may have changed. It returns when changed returns an error, when
	// etcd does not answer, and when ctx ends.
	WatchGateways(ctx context.Context, changed func(all []*adminv1.Gateway, head int64) error) error

	// AwaitRollout waits until the rollout of a revision has ended, and returns how.
	AwaitRollout(ctx context.Context, revision int64) (*adminv1.RolloutStatus, error)
}

// fleetService implements FleetService.
type fleetService struct {
	*Server
	adminv1.UnsafeFleetServiceServer
}

func (s fleetService) ListGateways(ctx context.Context, req *adminv1.ListGatewaysRequest) (*adminv1.ListGatewaysResponse, error) {
	const list = "gateways"
	last, err := parseToken[string](list, req.GetPageToken())
	if err != nil {
		return nil, err
	}
	if s.fleet == nil {
		return nil, errNoFleet()
	}
	all, head, err := s.fleet.Gateways(ctx)
	if err != nil {
		return nil, errUnknownGateways(err)
	}
	if last != nil {
		all = all[sort.Search(len(all), func(i int) bool { return all[i].GetGatewayId() > *last }):]
	}
	out := &adminv1.ListGatewaysResponse{HeadRevision: head}
	p := newPage(req.GetPageSize())
	for i, g := range all {
		if !p.takes(g) {
			out.NextPageToken = formatToken(list, all[i-1].GetGatewayId())
			break
		}
		out.Gateways = append(out.Gateways, g)
	}
	return out, nil
}

func errNoFleet() error {
	return statusWith(codes.FailedPrecondition, "NO_FLEET", "the gateway belongs to no fleet: it runs without --store etcd").Err()
}

func errUnknownGateways(err error) error {
	return invalid.Errorf(invalid.Unavailable, "", "the gateways of the fleet cannot be listed: %v", err)
}

func (s fleetService) WatchGateways(_ *adminv1.WatchGatewaysRequest, stream grpc.ServerStreamingServer[adminv1.WatchGatewaysResponse]) error {
	if s.fleet == nil {
		return errNoFleet()
	}
	ctx := stream.Context() // ends when the server stops
	return s.withSendTimeout(ctx, adminv1.FleetService_WatchGateways_FullMethodName, func(timed timedSend) error {
		var sent gatewayList
		var failed error
		err := s.fleet.WatchGateways(ctx, func(all []*adminv1.Gateway, head int64) error {
			for _, part := range sent.update(all, head) {
				if failed = timed(func() error { return stream.Send(part) }); failed != nil {
					return failed
				}
			}
			return nil
		})
		switch {
		case failed != nil:
			return failed
		case ctx.Err() != nil:
			return ctx.Err()
		}
		return errUnknownGateways(err)
	})
}

// A gatewayList is the list that a client of WatchGateways has. The zero value is empty.
type gatewayList struct {
	synced bool
	head   int64
	byID   map[string]*adminv1.Gateway
}

// update returns the messages that bring the client to a new list. It returns no
// messages if the client has that list.
func (l *gatewayList) update(all []*adminv1.Gateway, head int64) []*adminv1.WatchGatewaysResponse {
	part := &adminv1.WatchGatewaysResponse{HeadRevision: head}
	var parts []*adminv1.WatchGatewaysResponse
	now, p, changed := map[string]*adminv1.Gateway{}, newPage(0), false
	for _, g := range all {
		now[g.GetGatewayId()] = g
		if was := l.byID[g.GetGatewayId()]; was != nil && proto.Equal(lasting(was), lasting(g)) {
			continue
		}
		if changed = true; !p.takes(g) {
			parts = append(parts, part)
			part, p = &adminv1.WatchGatewaysResponse{HeadRevision: head}, newPage(0)
			p.takes(g)
		}
		part.Gateways = append(part.Gateways, g)
	}
	for _, id := range slices.Sorted(maps.Keys(l.byID)) {
		if now[id] == nil {
			changed = true
			part.Removed = append(part.Removed, id)
		}
	}
	same := l.synced && l.head == head && !changed
	l.synced, l.head, l.byID = true, head, now
	if same {
		return nil
	}
	part.Synced = true
	return append(parts, part)
}

// lasting returns a gateway without the fields that change all the time.
func lasting(g *adminv1.Gateway) *adminv1.Gateway {
	g = proto.CloneOf(g)
	g.Lag, g.LastSeenTime, g.Rollout = 0, nil, nil
	return g
}
