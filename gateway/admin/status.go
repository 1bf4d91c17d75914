package admin

import (
	"context"

	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

// statusService implements StatusService. It is a type apart from adminService
// because both have a ListUpstreams.
type statusService struct {
	*Server
	adminv1.UnsafeStatusServiceServer
}

func (s statusService) GetStatus(context.Context, *adminv1.GetStatusRequest) (*adminv1.GetStatusResponse, error) {
	return s.gateway.Status(), nil
}

func (s statusService) ListUpstreams(context.Context, *adminv1.StatusServiceListUpstreamsRequest) (*adminv1.StatusServiceListUpstreamsResponse, error) {
	return &adminv1.StatusServiceListUpstreamsResponse{Upstreams: s.gateway.UpstreamStatuses()}, nil
}
