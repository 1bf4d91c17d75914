package main

import (
	"strings"

	"github.com/spf13/cobra"

	"github.com/drawbridge-gateway/drawbridge/cmd/drawbridge/client"
	"github.com/drawbridge-gateway/drawbridge/cmd/drawbridge/exit"
	"github.com/drawbridge-gateway/drawbridge/cmd/drawbridge/format"
	"github.com/drawbridge-gateway/drawbridge/cmd/drawbridge/terminal"
	"github.com/drawbridge-gateway/drawbridge/cmd/drawbridge/view"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

const explainLong = `Explain shows where a request or connection at a listener would go, and how: the
route that matches and why, the upstreams with their shares, and for each endpoint
the SNI, the names to verify and the client certificate. It sends no traffic.

For an HTTP listener, describe the request with --host, --path, --method and
--header. For a TCP listener, describe the connection with --sni. If routes match the
client's certificate, name its file with --client-cert, or describe it with
--client-san, --client-fingerprint and --client-issuer.

The exit code is 1 if the request would be rejected, or if every upstream that it
could go to is down.`

func newExplain(c *cli) *cobra.Command {
	req := &adminv1.ExplainRouteRequest{}
	var headers []string
	cmd := &cobra.Command{
		Use:   "explain LISTENER",
		Short: "Show where a request would go, and why",
		Long:  explainLong,
		Example: `  drawbridge explain web --host pay.example.com --path /v2/orders
  drawbridge explain web --method POST --header "X-Canary: yes"
  drawbridge explain databases --sni orders.db.example.com -o json
  drawbridge explain web --path /admin --client-san URI:spiffe://corp/ns/ops/sa/admin`,
		Args: cobra.ExactArgs(1),
	}
	flags := cmd.Flags()
	flags.StringVar(&req.Host, "host", "", "the request's `host`")
	flags.StringVar(&req.Path, "path", "", "the request's `path` (default /)")
	flags.StringVar(&req.Method, "method", "", "the request's `method` (default GET)")
	flags.StringArrayVarP(&headers, "header", "H", nil, "a `header` of the request, \"Name: value\"; may be repeated")
	flags.StringVar(&req.Sni, "sni", "", "the `name` that the client sends as SNI")
	clientCert := clientFlags(flags)
	output := format.Flag(cmd)
	conn := client.Flags(c.Env, flags)
	cmd.ValidArgsFunction = conn.CompleteName(adminv1.Kind_KIND_LISTENER)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		req.Listener = args[0]
		var err error
		if req.Headers, err = parseHeaders(headers); err != nil {
			return err
		}
		if req.ClientIdentity, err = clientCert.identity(); err != nil {
			return err
		}
		cl, err := conn.Dial()
		if err != nil {
			return err
		}
		defer cl.Close()
		answer, err := cl.Diagnostics.ExplainRoute(cmd.Context(), req)
		if err != nil {
			return cl.Failure(err, nil)
		}
		if *output != format.Table {
			err = format.WriteWords(c.Out, *output, answer)
		} else {
			err = view.WriteExplanation(c.Out, c.Paint(c.Out), req, answer)
		}
		if err != nil {
			return err
		}
		return explainFailure(answer)
	}
	return cmd
}

// parseHeaders parses "Name: value" lines. The API takes one value for each header, so a
// repeated header is an error.
func parseHeaders(lines []string) (map[string]string, error) {
	headers := make(map[string]string)
	for _, line := range lines {
		name, value, ok := strings.Cut(line, ":")
		name = strings.TrimSpace(name)
		if !ok || name == "" {
			return nil, exit.UsageError(`--header: must be "Name: value"`)
		}
		for have := range headers {
			if strings.EqualFold(have, name) {
				return nil, exit.UsageError("--header: " + terminal.Printable(name) + " is given twice")
			}
		}
		headers[name] = strings.TrimSpace(value)
	}
	return headers, nil
}

func explainFailure(answer *adminv1.ExplainRouteResponse) error {
	if answer.GetAction() == adminv1.ExplainedAction_EXPLAINED_ACTION_REFUSE {
		return &exit.Error{Code: exit.Failure, Summary: "it would be rejected"}
	}
	down := 0
	for _, u := range answer.GetUpstreams() {
		if u.GetReason() != adminv1.Reason_REASON_UNSPECIFIED || allUnavailable(u) {
			down++
		}
	}
	if down > 0 && down == len(answer.GetUpstreams()) {
		return &exit.Error{Code: exit.Failure, Summary: "every upstream that it could go to is down"}
	}
	return nil
}

// allUnavailable reports whether no endpoint of an upstream takes traffic.
func allUnavailable(u *adminv1.ExplainedUpstream) bool {
	for _, e := range u.GetEndpoints() {
		if !e.GetDraining() && e.GetUnavailableReason() == "" {
			return false
		}
	}
	return len(u.GetEndpoints()) > 0 && int(u.GetEndpointCount()) <= len(u.GetEndpoints())
}
