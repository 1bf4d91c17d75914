package admin

import (
	"context"

	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

func (s adminService) PutTrustBundle(ctx context.Context, req *adminv1.PutTrustBundleRequest) (*adminv1.PutTrustBundleResponse, error) {
	change, t, err := put(ctx, s, "trust_bundle", req.GetTrustBundle(), req.GetOptions())
	return &adminv1.PutTrustBundleResponse{Change: change, TrustBundle: t}, err
}

func (s adminService) GetTrustBundle(_ context.Context, req *adminv1.GetTrustBundleRequest) (*adminv1.TrustBundle, error) {
	return get[*adminv1.TrustBundle](s, req.GetName())
}

func (s adminService) ListTrustBundles(_ context.Context, req *adminv1.ListTrustBundlesRequest) (*adminv1.ListTrustBundlesResponse, error) {
	page, next, err := list[*adminv1.TrustBundle](s, req)
	return &adminv1.ListTrustBundlesResponse{TrustBundles: page, NextPageToken: next}, err
}

func (s adminService) DeleteTrustBundle(ctx context.Context, req *adminv1.DeleteTrustBundleRequest) (*adminv1.DeleteTrustBundleResponse, error) {
	change, err := s.remove(ctx, adminv1.Kind_KIND_TRUST_BUNDLE, req.GetName(), req.GetEtag(), req.GetOptions())
	return &adminv1.DeleteTrustBundleResponse{Change: change}, err
}
