package admin

import (
	"context"

	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

func (s adminService) PutCertificate(ctx context.Context, req *adminv1.PutCertificateRequest) (*adminv1.PutCertificateResponse, error) {
	change, c, err := put(ctx, s, "certificate", req.GetCertificate(), req.GetOptions())
	return &adminv1.PutCertificateResponse{Change: change, Certificate: c}, err
}

func (s adminService) GetCertificate(_ context.Context, req *adminv1.GetCertificateRequest) (*adminv1.Certificate, error) {
	return get[*adminv1.Certificate](s, req.GetName())
}

func (s adminService) ListCertificates(_ context.Context, req *adminv1.ListCertificatesRequest) (*adminv1.ListCertificatesResponse, error) {
	page, next, err := list[*adminv1.Certificate](s, req)
	return &adminv1.ListCertificatesResponse{Certificates: page, NextPageToken: next}, err
}

func (s adminService) DeleteCertificate(ctx context.Context, req *adminv1.DeleteCertificateRequest) (*adminv1.DeleteCertificateResponse, error) {
	change, err := s.remove(ctx, adminv1.Kind_KIND_CERTIFICATE, req.GetName(), req.GetEtag(), req.GetOptions())
	return &adminv1.DeleteCertificateResponse{Change: change}, err
}
