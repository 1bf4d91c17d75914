package admin

import (
	"context"
	"time"

	"github.com/drawbridge-gateway/drawbridge/certs"
	"github.com/drawbridge-gateway/drawbridge/gateway/invalid"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

// diagnosticsService implements DiagnosticsService.
type diagnosticsService struct {
	*Server
	adminv1.UnsafeDiagnosticsServiceServer
}

func (s diagnosticsService) ProbeUpstream(ctx context.Context, req *adminv1.ProbeUpstreamRequest) (*adminv1.ProbeUpstreamResponse, error) {
	if err := s.mayProbe(ctx, req); err != nil {
		return nil, err
	}
	return s.gateway.Probe(ctx, req)
}

func (s diagnosticsService) ExplainRoute(_ context.Context, req *adminv1.ExplainRouteRequest) (*adminv1.ExplainRouteResponse, error) {
	return s.gateway.Explain(req)
}

func (s diagnosticsService) FlushSessions(_ context.Context, req *adminv1.FlushSessionsRequest) (*adminv1.FlushSessionsResponse, error) {
	n, err := s.gateway.FlushSessions(req.GetUpstream())
	return &adminv1.FlushSessionsResponse{Flushed: int32(n)}, err
}

var drainPeriod = durationField{path: "period", example: "30s", absent: 30 * time.Second, most: 24 * time.Hour}

func (s diagnosticsService) DrainConnections(_ context.Context, req *adminv1.DrainConnectionsRequest) (*adminv1.DrainConnectionsResponse, error) {
	var bad invalid.List
	fingerprint := parseFingerprint(req.GetSha256Fingerprint(), &bad)
	period := drainPeriod.of(req.GetPeriod(), &bad)
	if err := bad.Err(); err != nil {
		return nil, err
	}
	n, err := s.gateway.DrainConnections(req.GetUpstream(), fingerprint, period)
	return &adminv1.DrainConnectionsResponse{Connections: int32(n)}, err
}

// parseFingerprint returns a fingerprint in canonical form: in lower case and without
// the colons that openssl writes. "" stays "".
func parseFingerprint(s string, bad *invalid.List) string {
	fingerprint, ok := certs.ParseFingerprint(s)
	if !ok && s != "" {
		bad.Add("sha256_fingerprint", "must be a SHA-256 in hexadecimal: 64 digits, with or without colons")
	}
	return fingerprint
}
