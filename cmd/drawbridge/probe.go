package main

import (
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/drawbridge-gateway/drawbridge/cmd/drawbridge/client"
	"github.com/drawbridge-gateway/drawbridge/cmd/drawbridge/exit"
	"github.com/drawbridge-gateway/drawbridge/cmd/drawbridge/format"
	"github.com/drawbridge-gateway/drawbridge/cmd/drawbridge/manifest"
	"github.com/drawbridge-gateway/drawbridge/cmd/drawbridge/terminal"
	"github.com/drawbridge-gateway/drawbridge/cmd/drawbridge/view"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

const probeLong = `Probe makes the running gateway dial an upstream's endpoints and make a TLS
handshake with exactly the upstream's settings. It explains the result: why a
handshake failed and which field to change, the presented chain with its faults
marked, the negotiated parameters, and the timings. A failed handshake may be
retried with one setting changed, to find the cause. A probe changes nothing and
sends no traffic.

With --request it also sends one HTTP request, GET, HEAD or OPTIONS, on another
connection. Some servers request or reject a client certificate only then.

UPSTREAM is a configured upstream. With -f it is read from a file and not applied:
a document of kind Upstream, which may refer to the gateway's certificates and
trust bundles. If the file holds several upstreams, name one.

With -o json or yaml, "results" has for each endpoint "outcome" (OK or FAILED),
"reason" (NAME_MISMATCH, ...; empty on success), "explanation", "suggestion" and
all details. Every field is present, even if it is empty.

The exit code is 0 only if every handshake succeeded.`

func newProbe(c *cli) *cobra.Command {
	var file, endpoint, host, request string
	cmd := &cobra.Command{
		Use:   "probe UPSTREAM | probe -f FILE [UPSTREAM]",
		Short: "Make a TLS handshake with an upstream's endpoints and explain the result",
		Long:  probeLong,
		Example: `  drawbridge probe payments
  drawbridge probe payments --endpoint 10.0.0.1:443
  drawbridge probe payments --request 'GET /healthz'
  drawbridge probe -f payments.yaml
  drawbridge probe payments -o json | jq -r '.results[] | .endpoint + " " + .reason'`,
		Args: cobra.MaximumNArgs(1),
	}
	cmd.Flags().StringVarP(&file, "file", "f", "", "`FILE` with the upstream, which is not applied; - for standard input")
	cmd.Flags().StringVar(&endpoint, "endpoint", "", "probe only the endpoint with this `ADDRESS`")
	cmd.Flags().StringVar(&host, "host", "", "`name` from a client's request or SNI, for an upstream whose serverNameSource is FROM_HOST")
	cmd.Flags().StringVar(&request, "request", "", "send this `REQUEST` (\"GET /path\", by HTTP/1.1) after the handshake and show the status")
	output := format.Flag(cmd)
	conn := client.Flags(c.Env, cmd.Flags())
	cmd.ValidArgsFunction = conn.CompleteName(adminv1.Kind_KIND_UPSTREAM)
	conn.CompleteFlag(cmd, "endpoint", func(u *adminv1.UpstreamStatus) []string {
		var addresses []string
		for _, e := range u.GetEndpoints() {
			addresses = append(addresses, e.GetAddress())
		}
		return addresses
	})
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		req := &adminv1.ProbeUpstreamRequest{Endpoint: endpoint, Host: host, Request: request}
		name := strings.Join(args, "")
		var fields exit.FieldNamer = exit.NoField
		switch {
		case file != "":
			m, err := manifest.Load(c.In, file)
			if err != nil {
				return err
			}
			i, err := upstreamIn(m, file, name)
			if err != nil {
				return err
			}
			req.Target = &adminv1.ProbeUpstreamRequest_Upstream{Upstream: m.Documents[i].Resource.GetUpstream()}
			fields = func(path string) string {
				return exit.InManifest(m)(fmt.Sprintf("resources[%d].%s", i, path))
			}
		case name != "":
			req.Target = &adminv1.ProbeUpstreamRequest_Name{Name: name}
		default:
			return exit.UsageError("nothing to probe: name an upstream, or a file with -f")
		}
		cl, err := conn.Dial()
		if err != nil {
			return err
		}
		defer cl.Close()
		answer, err := cl.Diagnostics.ProbeUpstream(cmd.Context(), req)
		if err != nil {
			return cl.Failure(err, fields)
		}
		if *output != format.Table {
			err = format.WriteWords(c.Out, *output, answer)
		} else {
			err = view.WriteProbe(c.Out, c.Paint(c.Out), answer.GetResults(), time.Now())
		}
		if err != nil {
			return err
		}
		return probeFailure(answer.GetResults())
	}
	return cmd
}

// upstreamIn returns the index of the upstream with the given name, or of the only
// upstream if name is empty.
func upstreamIn(m *manifest.Manifest, file, name string) (int, error) {
	found := -1
	var names []string
	for i, doc := range m.Documents {
		u := doc.Resource.GetUpstream()
		if u == nil {
			continue
		}
		names = append(names, u.GetName())
		if name == "" || name == u.GetName() {
			found = i
		}
	}
	switch {
	case found < 0 && name != "":
		return 0, &exit.Error{Code: exit.NotFound, Summary: fmt.Sprintf("%s holds no upstream %q", file, name)}
	case found < 0:
		return 0, &exit.Error{Code: exit.Invalid, Summary: file + " holds no upstream"}
	case name == "" && len(names) > 1:
		return 0, exit.UsageError(fmt.Sprintf("%s holds several upstreams; name one of %s", file, strings.Join(names, ", ")))
	}
	return found, nil
}

// probeFailure returns nil if there are endpoints and every handshake succeeded.
func probeFailure(results []*adminv1.ProbeResult) error {
	failed := 0
	for _, r := range results {
		if r.GetOutcome() != adminv1.ProbeOutcome_PROBE_OUTCOME_OK {
			failed++
		}
	}
	switch {
	case len(results) == 0:
		return &exit.Error{Code: exit.Failure, Summary: "no endpoint was probed"}
	case failed > 0:
		return &exit.Error{Code: exit.Failure, Summary: fmt.Sprintf("%d of %s failed", failed, terminal.Count(len(results), "endpoint"))}
	}
	return nil
}
