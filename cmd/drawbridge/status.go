package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/drawbridge-gateway/drawbridge/cmd/drawbridge/client"
	"github.com/drawbridge-gateway/drawbridge/cmd/drawbridge/exit"
	"github.com/drawbridge-gateway/drawbridge/cmd/drawbridge/format"
	"github.com/drawbridge-gateway/drawbridge/cmd/drawbridge/gateways"
	"github.com/drawbridge-gateway/drawbridge/cmd/drawbridge/manifest"
	"github.com/drawbridge-gateway/drawbridge/cmd/drawbridge/view"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

const statusLong = `Status shows the current state of the running gateway:
  - listeners, with the addresses they are bound to
  - endpoints, with their handshakes (and why full ones were not resumed), their
    last failure, or why they take no traffic
  - results of health checks and of DNS lookups, and warm connections, where
    they are configured
  - connections by client certificate, where an upstream has several
  - failed verifications that VERIFICATION_REPORT_ONLY accepted
  - resources that are down, with the reason

With --certificates it shows every certificate in use instead, the soonest to
expire first: the gateway's own, the CAs and revocation lists of trust bundles,
and those that upstreams' endpoints presented. ("get certificates" shows the
configured ones.) Below the table it names the CAs that are no longer needed:
no handshake has used them for --unused-for.

With --fleet it shows the gateways that share one configuration in etcd (serve --store
etcd): how many run the latest revision, and what is wrong with the others. ("gateways"
lists all.)

With --ready it only reports whether the gateway is ready, as /readyz does: exit code 0
if it is, and 6 if it is not or cannot be reached. Use it to check containers.

-o json and yaml hold the responses of StatusService: {"status": …, "upstreams": […]},
or with --certificates {"certificates": […]}, or with --fleet the response of
FleetService.ListGateways.`

func newStatus(c *cli) *cobra.Command {
	var certificates, ready, fleet bool
	var unusedFor time.Duration
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show the live listeners and upstreams, and what is down and why",
		Long:  statusLong,
		Example: `  drawbridge status
  drawbridge status --certificates
  drawbridge status --fleet
  drawbridge status --ready
  drawbridge status -o json | jq .status.problems`,
		Args: cobra.NoArgs,
	}
	cmd.Flags().BoolVar(&certificates, "certificates", false, "show every certificate in use, sorted by days left, including those of upstreams and CAs")
	cmd.Flags().BoolVar(&fleet, "fleet", false, "show the gateways of the fleet that are disconnected, are behind, or have resources that are down")
	cmd.Flags().BoolVar(&ready, "ready", false, "only report whether the gateway is ready, by the exit code")
	cmd.Flags().DurationVar(&unusedFor, "unused-for", 24*time.Hour, "with --certificates: how long a CA must be unused before it is reported as no longer needed; choose more than the longest pause between a client's connections")
	output := format.Flag(cmd)
	conn := client.Flags(c.Env, cmd.Flags())
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if cmd.Flags().Changed("unused-for") && !certificates {
			return exit.UsageError("--unused-for needs --certificates")
		}
		if ready && (certificates || fleet || cmd.Flags().Changed("output")) {
			return exit.UsageError("--ready cannot be combined with --certificates, --fleet or --output")
		}
		if fleet && certificates {
			return exit.UsageError("--fleet cannot be combined with --certificates")
		}
		cl, err := conn.Dial()
		if err != nil {
			return err
		}
		defer cl.Close()
		if fleet {
			return c.showFleet(cmd.Context(), cl, *output)
		}
		if certificates {
			return cl.Failure(c.showCertificates(cmd.Context(), cl, *output, unusedFor), nil)
		}
		st, err := cl.WholeStatus(cmd.Context())
		if err != nil {
			return cl.Failure(err, nil)
		}
		if ready {
			if !st.GetReady() {
				return &exit.Error{Code: exit.Unavailable, Summary: "the gateway is not ready"}
			}
			_, err := fmt.Fprintln(c.Out, "ready")
			return err
		}
		ups, err := cl.UpstreamStatuses(cmd.Context())
		if err != nil {
			return cl.Failure(err, nil)
		}
		switch *output {
		case format.JSON:
			return writeStatusJSON(c.Out, st, ups)
		case format.YAML:
			var text bytes.Buffer
			if err := writeStatusJSON(&text, st, ups); err != nil {
				return err
			}
			yaml, err := manifest.YAMLFromJSON(text.Bytes())
			if err != nil {
				return err
			}
			_, err = c.Out.Write(yaml)
			return err
		}
		return view.WriteStatus(c.Out, c.Paint(c.Out), st, ups)
	}
	return cmd
}

// showFleet prints how many gateways of the fleet run the latest revision, and those that
// need attention.
func (c *cli) showFleet(ctx context.Context, cl *client.Client, f format.Format) error {
	found, err := cl.Gateways(ctx)
	if err != nil {
		return cl.Failure(err, exit.NoField)
	}
	if f != format.Table {
		return format.WriteWords(c.Out, f, found)
	}
	summary, ill := gateways.Summary(found, time.Now())
	if _, err := fmt.Fprintln(c.Out, summary); err != nil || ill == nil {
		return err
	}
	fmt.Fprintln(c.Out)
	return c.WriteTable(ill)
}

func writeStatusJSON(w io.Writer, st *adminv1.GetStatusResponse, ups []*adminv1.UpstreamStatus) error {
	status, err := protojson.Marshal(st)
	if err != nil {
		return err
	}
	upstreams := make([]json.RawMessage, 0, len(ups))
	for _, u := range ups {
		text, err := protojson.Marshal(u)
		if err != nil {
			return err
		}
		upstreams = append(upstreams, text)
	}
	return format.WriteJSON(w, struct {
		Status    json.RawMessage   `json:"status"`
		Upstreams []json.RawMessage `json:"upstreams"`
	}{status, upstreams})
}
