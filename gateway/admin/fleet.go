package admin

import (
	"context"
	"sort"

	"google.golang.org/grpc/codes"

	"github.com/drawbridge-gateway/drawbridge/gateway/invalid"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

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
	if s.gateways == nil {
		return nil, statusWith(codes.FailedPrecondition, "NO_FLEET", "the gateway belongs to no fleet: it runs without --store etcd").Err()
	}
	all, head, err := s.gateways(ctx)
	if err != nil {
		return nil, invalid.Errorf(invalid.Unavailable, "", "the gateways of the fleet are not known: %v", err)
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
