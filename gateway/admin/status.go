package admin

import (
	"context"

	"google.golang.org/grpc"

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

func (s statusService) ListCertificates(context.Context, *adminv1.StatusServiceListCertificatesRequest) (*adminv1.StatusServiceListCertificatesResponse, error) {
	return &adminv1.StatusServiceListCertificatesResponse{Certificates: s.gateway.Certificates()}, nil
}

func (s statusService) WatchEvents(_ *adminv1.WatchEventsRequest, stream grpc.ServerStreamingServer[adminv1.WatchEventsResponse]) error {
	events, stop := s.gateway.WatchEvents()
	defer stop()
	// The header tells the client that from now on nothing is missed.
	first := func() error { return stream.SendHeader(nil) }
	return relay(s.Server, stream.Context(), adminv1.StatusService_WatchEvents_FullMethodName, events, first, stream.Send)
}
