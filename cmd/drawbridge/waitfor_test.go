package main

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"github.com/drawbridge-gateway/drawbridge/cmd/drawbridge/command"
	"github.com/drawbridge-gateway/drawbridge/cmd/drawbridge/exit"
	"github.com/drawbridge-gateway/drawbridge/cmd/drawbridge/format"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

func TestAWriteFailsIfAConnectedGatewayDoesNotRunIt(t *testing.T) {
	live := &adminv1.GatewayOutcome{GatewayId: "live", State: adminv1.GatewayState_GATEWAY_STATE_LIVE, Revision: 4}
	gone := &adminv1.GatewayOutcome{GatewayId: "gone", State: adminv1.GatewayState_GATEWAY_STATE_DISCONNECTED, Revision: 3}
	slow := &adminv1.GatewayOutcome{GatewayId: "slow", State: adminv1.GatewayState_GATEWAY_STATE_BEHIND, Revision: 3, Message: "the revision is not live yet"}
	waited := &adminv1.WaitFor{Target: adminv1.WaitTarget_WAIT_TARGET_FLEET}
	for _, c := range []struct {
		name     string
		waited   *adminv1.WaitFor
		gateways []*adminv1.GatewayOutcome
		summary  string // "": no error
	}{
		{"all gateways run the revision", waited, []*adminv1.GatewayOutcome{live, gone}, ""},
		{"one gateway does not run the revision", waited, []*adminv1.GatewayOutcome{live, gone, slow}, "1 of 2 connected gateways do not run the whole revision"},
		{"the gateways could not be listed", waited, nil, "could not be listed"},
		{"without --wait-for", nil, nil, ""},
	} {
		var out bytes.Buffer
		err := (&cli{Env: &command.Env{Out: &out, LookupEnv: func(string) (string, bool) { return "", false }}}).showOutcomes(format.Table, c.waited, &adminv1.Change{Revision: 4, Gateways: c.gateways})
		var failed *exit.Error
		if errors.As(err, &failed); (failed != nil) != (c.summary != "") || failed != nil && (failed.Code != exit.Unavailable || !strings.Contains(failed.Summary, c.summary)) {
			t.Errorf("%s: %v", c.name, err)
		}
		for _, g := range c.gateways {
			if !strings.Contains(out.String(), g.GetGatewayId()) {
				t.Errorf("%s: %s is missing in:\n%s", c.name, g.GetGatewayId(), out.String())
			}
		}
	}
}
