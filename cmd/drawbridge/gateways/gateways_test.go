package gateways

import (
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

func TestEachGatewayIsARow(t *testing.T) {
	now := time.Now()
	var out strings.Builder
	err := table(&adminv1.ListGatewaysResponse{Gateways: []*adminv1.Gateway{
		{GatewayId: "a", Labels: map[string]string{"zone": "1", "tier": "edge"}, Version: "v1", Revision: 7, Connected: true, Address: "unix:/a.sock"},
		{GatewayId: "b", Revision: 5, Lag: 2, ProblemCount: 3, LastSeenTime: timestamppb.New(now.Add(-time.Minute)),
			Problems: []*adminv1.Problem{{Kind: adminv1.Kind_KIND_LISTENER, Name: "web", Reason: "the port is taken"}}},
	}}, now).Write(&out, false)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"tier=edge,zone=1", "connected", "not connected, seen 1m0s ago", "3: listener web: the port is taken"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is missing in:\n%s", want, out.String())
		}
	}
}
