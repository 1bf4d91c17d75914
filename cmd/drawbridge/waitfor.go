package main

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/drawbridge-gateway/drawbridge/cmd/drawbridge/client"
	"github.com/drawbridge-gateway/drawbridge/cmd/drawbridge/exit"
	"github.com/drawbridge-gateway/drawbridge/cmd/drawbridge/format"
	"github.com/drawbridge-gateway/drawbridge/cmd/drawbridge/terminal"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

// waitForFlag adds --wait-for and --wait-timeout to a command that writes. The option is
// nil without them.
func waitForFlag(cmd *cobra.Command) func() (*adminv1.WaitFor, error) {
	target := cmd.Flags().String("wait-for", "", "wait until every connected gateway of the `fleet` runs the revision, and fail if one of them cannot; the only value is fleet")
	timeout := cmd.Flags().Duration("wait-timeout", 30*time.Second, "with --wait-for: the maximum wait (1s to 10m)")
	if err := cmd.RegisterFlagCompletionFunc("wait-for", cobra.FixedCompletions([]string{"fleet"}, cobra.ShellCompDirectiveNoFileComp)); err != nil {
		panic(err) // no such flag: a programming error
	}
	return func() (*adminv1.WaitFor, error) {
		switch {
		case !cmd.Flags().Changed("wait-for") && cmd.Flags().Changed("wait-timeout"):
			return nil, exit.UsageError("--wait-timeout requires --wait-for fleet")
		case !cmd.Flags().Changed("wait-for"):
			return nil, nil
		case *target != "fleet":
			return nil, exit.UsageError(fmt.Sprintf("--wait-for %q: must be fleet", *target))
		}
		return &adminv1.WaitFor{Target: adminv1.WaitTarget_WAIT_TARGET_FLEET, Timeout: durationpb.New(*timeout)}, nil
	}
}

// awaitWritten prints how the rollout of a revision ended, the state of the revision at the
// gateways that the write waited for, and how to confirm it.
func (c *cli) awaitWritten(ctx context.Context, cl *client.Client, f format.Format, waited *adminv1.WaitFor, change *adminv1.Change) error {
	if err := c.showRollout(f, change.GetRollout()); err != nil {
		return err
	}
	missing := c.showOutcomes(f, waited, change)
	if err := c.awaitConfirmation(ctx, cl, f, change.GetPending()); err != nil {
		return err
	}
	return missing
}

// showOutcomes prints the state of a revision at the gateways of the fleet. It returns
// an error if a connected gateway does not run the whole revision, or if the gateways
// could not be listed.
func (c *cli) showOutcomes(f format.Format, waited *adminv1.WaitFor, change *adminv1.Change) error {
	if waited == nil {
		return nil
	}
	t := &terminal.Table{Header: []string{"GATEWAY", "STATE", "REVISION", "REASON"}}
	connected, missing := 0, 0
	for _, g := range change.GetGateways() {
		switch g.GetState() {
		case adminv1.GatewayState_GATEWAY_STATE_LIVE:
			connected++
		case adminv1.GatewayState_GATEWAY_STATE_DISCONNECTED:
		default:
			connected, missing = connected+1, missing+1
		}
		t.Add(g.GetGatewayId(), format.Lower(g.GetState()), fmt.Sprint(g.GetRevision()), g.GetMessage())
	}
	if f == format.Table && len(t.Rows) > 0 {
		if err := c.WriteTable(t); err != nil {
			return err
		}
	}
	switch {
	case connected == 0:
		return &exit.Error{Code: exit.Unavailable, Summary: fmt.Sprintf("revision %d is committed, but the gateways of the fleet could not be listed", change.GetRevision())}
	case missing > 0:
		return &exit.Error{Code: exit.Unavailable, Summary: fmt.Sprintf("revision %d is committed, but %d of %d connected gateways do not run the whole revision", change.GetRevision(), missing, connected)}
	}
	return nil
}
