package admin

import (
	"context"

	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

func (s adminService) PutRoute(ctx context.Context, req *adminv1.PutRouteRequest) (*adminv1.PutRouteResponse, error) {
	change, r, err := put(ctx, s, "route", req.GetRoute(), req.GetOptions())
	return &adminv1.PutRouteResponse{Change: change, Route: r}, err
}

func (s adminService) GetRoute(_ context.Context, req *adminv1.GetRouteRequest) (*adminv1.Route, error) {
	return get[*adminv1.Route](s, req.GetName())
}

func (s adminService) ListRoutes(_ context.Context, req *adminv1.ListRoutesRequest) (*adminv1.ListRoutesResponse, error) {
	page, next, err := list[*adminv1.Route](s, req)
	return &adminv1.ListRoutesResponse{Routes: page, NextPageToken: next}, err
}

func (s adminService) DeleteRoute(ctx context.Context, req *adminv1.DeleteRouteRequest) (*adminv1.DeleteRouteResponse, error) {
	change, err := s.remove(ctx, adminv1.Kind_KIND_ROUTE, req.GetName(), req.GetEtag(), req.GetOptions())
	return &adminv1.DeleteRouteResponse{Change: change}, err
}
