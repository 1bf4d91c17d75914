package admin

import (
	"context"
	"errors"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

func TestGatewaysOfAFleetAreListedInPages(t *testing.T) {
	fleet := []*adminv1.Gateway{{GatewayId: "a"}, {GatewayId: "b"}, {GatewayId: "c"}}
	var fault error
	r := start(t, func(o *Options) {
		o.Gateways = func(context.Context) ([]*adminv1.Gateway, int64, error) { return fleet, 9, fault }
	})
	c := adminv1.NewFleetServiceClient(r.conn)
	first, err := c.ListGateways(t.Context(), &adminv1.ListGatewaysRequest{PageSize: 2})
	if err != nil || len(first.GetGateways()) != 2 || first.GetHeadRevision() != 9 || first.GetNextPageToken() == "" {
		t.Fatalf("%v, %v", first, err)
	}
	last, err := c.ListGateways(t.Context(), &adminv1.ListGatewaysRequest{PageSize: 2, PageToken: first.GetNextPageToken()})
	if err != nil || len(last.GetGateways()) != 1 || last.GetGateways()[0].GetGatewayId() != "c" || last.GetNextPageToken() != "" {
		t.Errorf("%v, %v", last, err)
	}
	if _, err := c.ListGateways(t.Context(), &adminv1.ListGatewaysRequest{PageToken: "x"}); status.Code(err) != codes.InvalidArgument {
		t.Errorf("a wrong token: %v", err)
	}
	fault = errors.New("no quorum")
	if _, err := c.ListGateways(t.Context(), &adminv1.ListGatewaysRequest{}); status.Code(err) != codes.Unavailable {
		t.Errorf("without etcd: %v", err)
	}
}

func TestAGatewayWithoutAFleetSaysSo(t *testing.T) {
	r := start(t)
	if _, err := adminv1.NewFleetServiceClient(r.conn).ListGateways(t.Context(), &adminv1.ListGatewaysRequest{}); status.Code(err) != codes.FailedPrecondition {
		t.Errorf("%v", err)
	}
}
