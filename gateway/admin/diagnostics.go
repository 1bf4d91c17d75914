package admin

import (
	"context"
	"time"

	"google.golang.org/protobuf/proto"

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
	ofClients := len(req.GetListeners())+len(req.GetClientIdentities()) > 0
	fingerprint := parseFingerprint(req.GetSha256Fingerprint(), &bad)
	period := drainPeriod.parse(req.GetPeriod(), &bad)
	switch {
	case req.GetUpstream() == "" && !ofClients:
		bad.Add("upstream", "is empty: name an upstream, or set listeners or client_identities")
	case req.GetUpstream() != "" && ofClients:
		bad.Add("upstream", "must be empty if listeners or client_identities is set: drain an upstream in a call of its own")
	case ofClients && fingerprint != "":
		bad.Add("sha256_fingerprint", "must be empty without upstream: it selects a certificate that the gateway presents to an upstream")
	}
	for i, name := range req.GetListeners() {
		if s.gateway.State().Get(adminv1.Kind_KIND_LISTENER, name) == nil {
			bad.AddClass(invalid.NotFound, invalid.Path("listeners").Index(i), "there is no listener %.80q", name)
		}
	}
	if err := bad.Err(); err != nil {
		return nil, err
	}
	var n int
	var err error
	if ofClients {
		n, err = s.gateway.CloseConnections(&adminv1.ConnectionFilter{Listeners: req.GetListeners(), ClientIdentities: req.GetClientIdentities()}, period)
	} else {
		n, err = s.gateway.DrainConnections(req.GetUpstream(), fingerprint, period)
	}
	return &adminv1.DrainConnectionsResponse{Connections: int32(n)}, err
}

var closeGrace = durationField{path: "grace", example: "30s", most: 24 * time.Hour}

func (s diagnosticsService) CloseConnections(_ context.Context, req *adminv1.CloseConnectionsRequest) (*adminv1.CloseConnectionsResponse, error) {
	var bad invalid.List
	grace := closeGrace.parse(req.GetGrace(), &bad)
	switch isEmpty := proto.Size(req.GetConnectionFilter()) == 0; {
	case isEmpty && !req.GetAll():
		bad.Add("connection_filter", "selects every connection: set one of its fields, or all")
	case !isEmpty && req.GetAll():
		bad.Add("all", "must be false if filter selects connections")
	}
	if err := bad.Err(); err != nil {
		return nil, err
	}
	n, err := s.gateway.CloseConnections(req.GetConnectionFilter(), grace)
	return &adminv1.CloseConnectionsResponse{Connections: int32(n)}, err
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
