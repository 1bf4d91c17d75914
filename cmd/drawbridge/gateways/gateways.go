// Package gateways implements the command "gateways", which lists the gateways of a
// fleet.
package gateways

import (
	"bytes"
	"context"
	"encoding/json"
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
	"github.com/drawbridge-gateway/drawbridge/cmd/drawbridge/manifest"
	"github.com/drawbridge-gateway/drawbridge/cmd/drawbridge/terminal"
	"github.com/drawbridge-gateway/drawbridge/cmd/drawbridge/view"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

const long = `Gateways lists the gateways that share one configuration in etcd (serve --store etcd).
Any gateway of the fleet can list them all.

REVISION is the live revision, and LAG the number of revisions after it. PROBLEMS counts
the resources that are down at the gateway; -o json lists them.

With --watch, the command first shows every gateway, then prints a line for each
change until it is interrupted. -o json writes a line for each WatchGatewaysResponse of
FleetService.`

// New returns the command.
func New(e *command.Env) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "gateways",
		Short: "List the gateways of the fleet",
		Long:  long,
		Example: `  drawbridge gateways
  drawbridge gateways --watch
  drawbridge gateways -o json | jq '.gateways[] | select(.lag != "0")'`,
		Args: cobra.NoArgs,
	}
	follow := cmd.Flags().Bool("watch", false, "show all gateways, then each change as it happens")
	output := format.Flag(cmd)
	conn := client.Flags(e, cmd.Flags())
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		cl, err := conn.Dial()
		if err != nil {
			return err
		}
		defer cl.Close()
		if *follow {
			return watch(cmd.Context(), e, cl, *output)
		}
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
		state := state(g, now)
		t.Add(g.GetGatewayId(), labels(g.GetLabels()), g.GetVersion(), fmt.Sprint(g.GetRevision()), fmt.Sprint(g.GetLag()), problems(g), g.GetAddress(), state)
	}
	return t
}

// state describes whether a gateway is connected and applies new revisions.
func state(g *adminv1.Gateway, now time.Time) string {
	switch {
	case !g.GetConnected():
		return fmt.Sprintf("not connected, seen %v ago", now.Sub(g.GetLastSeenTime().AsTime()).Round(time.Second)) + duplicates(g)
	case g.GetError() != "":
		return "cannot follow: " + terminal.Printable(g.GetError()) + duplicates(g)
	}
	return "connected" + duplicates(g)
}

// duplicates names the other gateways that use the ID of a gateway; "": none.
func duplicates(g *adminv1.Gateway) string {
	if len(g.GetDuplicates()) == 0 {
		return ""
	}
	var addresses []string
	for _, d := range g.GetDuplicates() {
		addresses = append(addresses, terminal.Printable(d.GetAddress()))
	}
	return fmt.Sprintf("; %s with the same ID: %s", terminal.Count(len(addresses), "other gateway"), strings.Join(addresses, ", "))
}

// Summary counts the gateways of a fleet by state, and returns a table of those that need
// attention; the table is nil if every gateway is well.
func Summary(found *adminv1.ListGatewaysResponse, now time.Time) (string, *terminal.Table) {
	attention := &adminv1.ListGatewaysResponse{}
	gone, behind, degraded, ambiguous := 0, 0, 0, 0
	for _, g := range found.GetGateways() {
		switch {
		case !g.GetConnected():
			gone++
		case g.GetLag() > 0:
			behind++
		case g.GetProblemCount() > 0:
			degraded++
		case len(g.GetDuplicates()) > 0:
			ambiguous++
		default:
			continue
		}
		attention.Gateways = append(attention.Gateways, g)
	}
	text := fmt.Sprintf("%s, latest revision %d: %d running it without problems", terminal.Count(len(found.GetGateways()), "gateway"), found.GetHeadRevision(), len(found.GetGateways())-len(attention.GetGateways()))
	for _, s := range []struct {
		n    int
		what string
	}{{behind, "behind"}, {degraded, "with resources that are down"}, {ambiguous, "whose ID other gateways use too"}, {gone, "not connected"}} {
		if s.n > 0 {
			text += fmt.Sprintf(", %d %s", s.n, s.what)
		}
	}
	if len(attention.GetGateways()) == 0 {
		return text + ".", nil
	}
	return text + ".", table(attention, now)
}

// watch prints the changes of the gateways until the stream or ctx ends.
func watch(ctx context.Context, e *command.Env, cl *client.Client, f format.Format) error {
	stream, err := cl.Fleet.WatchGateways(ctx, &adminv1.WatchGatewaysRequest{})
	if err != nil {
		return cl.Failure(err, exit.NoField)
	}
	for {
		part, err := stream.Recv()
		switch {
		case ctx.Err() != nil:
			return nil // an interrupt is the normal end
		case err != nil:
			return cl.Failure(err, exit.NoField)
		}
		text, err := changeText(part, f, time.Now())
		if err != nil {
			return err
		}
		if _, err := e.Out.Write(text); err != nil {
			return err
		}
	}
}

// changeText formats a change of the gateways: a line for each of them, or one document.
func changeText(part *adminv1.WatchGatewaysResponse, f format.Format, now time.Time) ([]byte, error) {
	var out bytes.Buffer
	if f != format.Table {
		text, err := format.WordsJSON(part)
		if err == nil && f == format.YAML {
			out.WriteString("---\n")
			text, err = manifest.YAMLFromJSON(text)
		} else if err == nil {
			err = json.Compact(&out, text)
			text = []byte{'\n'}
		}
		out.Write(text)
		return out.Bytes(), err
	}
	at := now.Local().Format("15:04:05")
	for _, g := range part.GetGateways() {
		fmt.Fprintf(&out, "%s  %s  revision %d of %d  %s  %s\n", at, terminal.Printable(g.GetGatewayId()), g.GetRevision(), part.GetHeadRevision(), state(g, now), terminal.Printable(problemText(g)))
	}
	for _, id := range part.GetRemoved() {
		fmt.Fprintf(&out, "%s  %s  removed\n", at, terminal.Printable(id))
	}
	if len(part.GetGateways())+len(part.GetRemoved()) == 0 {
		fmt.Fprintf(&out, "%s  latest revision %d\n", at, part.GetHeadRevision())
	}
	return out.Bytes(), nil
}

// problems returns the number of problems, and the first one.
func problems(g *adminv1.Gateway) string {
	if len(g.GetProblems()) == 0 {
		return fmt.Sprint(g.GetProblemCount())
	}
	first := g.GetProblems()[0]
	return fmt.Sprintf("%d: %s %s: %s", g.GetProblemCount(), view.KindLabel(first.GetKind()), first.GetName(), first.GetReason())
}

// problemText returns the problems of a gateway in words.
func problemText(g *adminv1.Gateway) string {
	if g.GetProblemCount() == 0 {
		return "no problems"
	}
	return "problems: " + problems(g)
}

func labels(all map[string]string) string {
	var parts []string
	for _, key := range slices.Sorted(maps.Keys(all)) {
		parts = append(parts, key+"="+all[key])
	}
	return strings.Join(parts, ",")
}
