package admin

import (
	"context"

	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

func (s adminService) PutUpstream(ctx context.Context, req *adminv1.PutUpstreamRequest) (*adminv1.PutUpstreamResponse, error) {
	change, u, err := put(ctx, s, "upstream", req.GetUpstream(), req.GetOptions())
	return &adminv1.PutUpstreamResponse{Change: change, Upstream: u}, err
}

func (s adminService) GetUpstream(_ context.Context, req *adminv1.GetUpstreamRequest) (*adminv1.Upstream, error) {
	return get[*adminv1.Upstream](s, req.GetName())
}

func (s adminService) ListUpstreams(_ context.Context, req *adminv1.ListUpstreamsRequest) (*adminv1.ListUpstreamsResponse, error) {
	page, next, err := list[*adminv1.Upstream](s, req)
	return &adminv1.ListUpstreamsResponse{Upstreams: page, NextPageToken: next}, err
}

func (s adminService) DeleteUpstream(ctx context.Context, req *adminv1.DeleteUpstreamRequest) (*adminv1.DeleteUpstreamResponse, error) {
	change, err := s.remove(ctx, adminv1.Kind_KIND_UPSTREAM, req.GetName(), req.GetEtag(), req.GetOptions())
	return &adminv1.DeleteUpstreamResponse{Change: change}, err
}
