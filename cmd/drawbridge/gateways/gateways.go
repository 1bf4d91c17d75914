// Package gateways is the command "gateways": it lists the gateways of a fleet.
package gateways

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/drawbridge-gateway/drawbridge/cmd/drawbridge/client"
	"github.com/drawbridge-gateway/drawbridge/cmd/drawbridge/command"
	"github.com/drawbridge-gateway/drawbridge/cmd/drawbridge/exit"
	"github.com/drawbridge-gateway/drawbridge/cmd/drawbridge/format"
	"github.com/drawbridge-gateway/drawbridge/cmd/drawbridge/terminal"
	"github.com/drawbridge-gateway/drawbridge/cmd/drawbridge/view"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

const long = `Gateways lists the gateways that share one configuration in etcd (serve --store etcd).
Any gateway of the fleet can list them all.

REVISION is the live revision, and LAG the number of revisions after it. PROBLEMS counts
the resources that are down at the gateway; -o json lists them.`

// New returns the command.
func New(e *command.Env) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "gateways",
		Short: "List the gateways of the fleet",
		Long:  long,
		Example: `  drawbridge gateways
  drawbridge gateways -o json | jq '.gateways[] | select(.lag != "0")'`,
		Args: cobra.NoArgs,
	}
	output := format.Flag(cmd)
	conn := client.Flags(e, cmd.Flags())
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		cl, err := conn.Dial()
		if err != nil {
			return err
		}
		defer cl.Close()
		found, err := cl.Gateways(cmd.Context())
		if err != nil {
			return cl.Failure(err, exit.NoField)
		}
		if *output != format.Table {
			return format.WriteWords(e.Out, *output, found)
		}
		return e.WriteTable(table(found, time.Now()))
	}
	return cmd
}

// table shows each gateway as a row.
func table(found *adminv1.ListGatewaysResponse, now time.Time) *terminal.Table {
	t := &terminal.Table{Header: []string{"GATEWAY", "LABELS", "VERSION", "REVISION", "LAG", "PROBLEMS", "ADDRESS", "STATE"}}
	for _, g := range found.GetGateways() {
		state := "connected"
		if !g.GetConnected() {
			state = fmt.Sprintf("not connected, seen %v ago", now.Sub(g.GetLastSeenTime().AsTime()).Round(time.Second))
		}
		t.Add(g.GetGatewayId(), labels(g.GetLabels()), g.GetVersion(), fmt.Sprint(g.GetRevision()), fmt.Sprint(g.GetLag()), problems(g), g.GetAddress(), state)
	}
	return t
}

// problems returns the number of problems, and the first one.
func problems(g *adminv1.Gateway) string {
	if len(g.GetProblems()) == 0 {
		return fmt.Sprint(g.GetProblemCount())
	}
	first := g.GetProblems()[0]
	return fmt.Sprintf("%d: %s %s: %s", g.GetProblemCount(), view.KindLabel(first.GetKind()), first.GetName(), first.GetReason())
}

func labels(all map[string]string) string {
	var parts []string
	for _, key := range slices.Sorted(maps.Keys(all)) {
		parts = append(parts, key+"="+all[key])
	}
	return strings.Join(parts, ",")
}
