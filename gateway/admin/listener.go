package admin

import (
	"context"

	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

func (s adminService) PutListener(ctx context.Context, req *adminv1.PutListenerRequest) (*adminv1.PutListenerResponse, error) {
	change, l, err := put(ctx, s, "listener", req.GetListener(), req.GetOptions())
	return &adminv1.PutListenerResponse{Change: change, Listener: l}, err
}

func (s adminService) GetListener(_ context.Context, req *adminv1.GetListenerRequest) (*adminv1.Listener, error) {
	return get[*adminv1.Listener](s, req.GetName())
}

func (s adminService) ListListeners(_ context.Context, req *adminv1.ListListenersRequest) (*adminv1.ListListenersResponse, error) {
	page, next, err := list[*adminv1.Listener](s, req)
	return &adminv1.ListListenersResponse{Listeners: page, NextPageToken: next}, err
}

func (s adminService) DeleteListener(ctx context.Context, req *adminv1.DeleteListenerRequest) (*adminv1.DeleteListenerResponse, error) {
	change, err := s.remove(ctx, adminv1.Kind_KIND_LISTENER, req.GetName(), req.GetEtag(), req.GetOptions())
	return &adminv1.DeleteListenerResponse{Change: change}, err
}
