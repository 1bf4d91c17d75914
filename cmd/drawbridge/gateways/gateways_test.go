package gateways

import (
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/drawbridge-gateway/drawbridge/cmd/drawbridge/format"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

func TestEachGatewayIsARow(t *testing.T) {
	now := time.Now()
	var out strings.Builder
	err := table(&adminv1.ListGatewaysResponse{Gateways: []*adminv1.Gateway{
		{GatewayId: "a", Labels: map[string]string{"zone": "1", "tier": "edge"}, Version: "v1", Revision: 7, Connected: true, Address: "unix:/a.sock"},
		{GatewayId: "c", Connected: true, Duplicates: []*adminv1.DuplicateGateway{{Address: "10.0.0.7:8443"}, {Address: "unix:/c.sock"}}},
		{GatewayId: "b", Revision: 5, Lag: 2, ProblemCount: 3, LastSeenTime: timestamppb.New(now.Add(-time.Minute)),
			Problems: []*adminv1.Problem{{Kind: adminv1.Kind_KIND_LISTENER, Name: "web", Reason: "the port is taken"}}},
	}}, now).Write(&out, false)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"tier=edge,zone=1", "connected", "not connected, seen 1m0s ago", "3: listener web: the port is taken",
		"connected; 2 other gateways with the same ID: 10.0.0.7:8443, unix:/c.sock"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is missing in:\n%s", want, out.String())
		}
	}
}

func TestSummaryListsTheGatewaysThatNeedAttention(t *testing.T) {
	well := &adminv1.Gateway{GatewayId: "well", Revision: 7, Connected: true}
	text, attention := Summary(&adminv1.ListGatewaysResponse{HeadRevision: 7, Gateways: []*adminv1.Gateway{well}}, time.Now())
	if text != "1 gateway, latest revision 7: 1 running it without problems." || attention != nil {
		t.Errorf("%q, %v", text, attention)
	}
	text, attention = Summary(&adminv1.ListGatewaysResponse{HeadRevision: 7, Gateways: []*adminv1.Gateway{well,
		{GatewayId: "slow", Revision: 5, Lag: 2, Connected: true, Error: "no memory"}, {GatewayId: "hurt", Revision: 7, ProblemCount: 1, Connected: true}, {GatewayId: "gone", Revision: 7},
		{GatewayId: "twice", Revision: 7, Connected: true, Duplicates: []*adminv1.DuplicateGateway{{Address: "unix:/b.sock"}}},
	}}, time.Now())
	if text != "5 gateways, latest revision 7: 1 running it without problems, 1 behind, 1 with resources that are down, 1 whose ID other gateways use too, 1 not connected." {
		t.Error(text)
	}
	var out strings.Builder
	if err := attention.Write(&out, false); err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{"slow", "hurt", "gone", "cannot follow: no memory", "twice"} {
		if !strings.Contains(out.String(), id) {
			t.Errorf("%q is missing in:\n%s", id, out.String())
		}
	}
	if strings.Contains(out.String(), "well") {
		t.Errorf("a gateway without problems is listed:\n%s", out.String())
	}
}

func TestEachChangeOfAGatewayIsALine(t *testing.T) {
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.Local)
	part := &adminv1.WatchGatewaysResponse{HeadRevision: 7, Removed: []string{"gone"}, Synced: true,
		Gateways: []*adminv1.Gateway{{GatewayId: "a", Revision: 5, Connected: true, Labels: map[string]string{"zone": "a"}}}}
	for f, want := range map[format.Format]string{
		format.Table: "03:04:05  a  revision 5 of 7  connected  no problems\n03:04:05  gone  removed\n",
		format.JSON:  `"headRevision":"7","synced":true}` + "\n",
		format.YAML:  "---\n",
	} {
		if text, err := changeText(part, f, at); err != nil || !strings.Contains(string(text), want) {
			t.Errorf("%v: %q, %v; want %q", f, text, err, want)
		}
	}
	if text, err := changeText(&adminv1.WatchGatewaysResponse{HeadRevision: 8}, format.Table, at); err != nil || string(text) != "03:04:05  latest revision 8\n" {
		t.Errorf("%q, %v", text, err)
	}
}
