package main

import (
	"bytes"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

const explainLong = `Explain shows where a request or connection at a listener would go, and how: the
route that matches and why, the upstreams with their shares, and for each endpoint
the SNI, the names to verify and the client certificate. Nothing is sent.

For an HTTP listener, describe the request with --host, --path, --method and
--header. For a TCP listener, describe the connection with --sni. Where routes match the
client's certificate, name its file with --client-cert, or say what it holds with
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
	client := clientFlags(flags)
	output := formatFlag(cmd)
	conn := c.connectFlags(flags)
	cmd.ValidArgsFunction = c.completeName(conn, adminv1.Kind_KIND_LISTENER)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		req.Listener = args[0]
		var err error
		if req.Headers, err = parseHeaders(headers); err != nil {
			return err
		}
		if req.ClientIdentity, err = client.identity(); err != nil {
			return err
		}
		cl, err := conn.dial()
		if err != nil {
			return err
		}
		defer cl.Close()
		answer, err := cl.diagnostics.ExplainRoute(cmd.Context(), req)
		if err != nil {
			return cl.failure(err, nil)
		}
		if *output != formatTable {
			err = showWords(c.out, *output, answer)
		} else {
			err = writeExplanation(c.out, c.paint(c.out), req, answer)
		}
		if err != nil {
			return err
		}
		return explainFailure(answer)
	}
	return cmd
}

// parseHeaders parses "Name: value" lines. The API takes one value a header, so a header
// that is given twice is an error.
func parseHeaders(lines []string) (map[string]string, error) {
	headers := make(map[string]string)
	for _, line := range lines {
		name, value, ok := strings.Cut(line, ":")
		name = strings.TrimSpace(name)
		if !ok || name == "" {
			return nil, usageError(`--header: must be "Name: value"`)
		}
		for have := range headers {
			if strings.EqualFold(have, name) {
				return nil, usageError("--header: " + printable(name) + " is given twice")
			}
		}
		headers[name] = strings.TrimSpace(value)
	}
	return headers, nil
}

func explainFailure(answer *adminv1.ExplainRouteResponse) error {
	if answer.GetAction() == adminv1.ExplainedAction_EXPLAINED_ACTION_REFUSE {
		return &failure{code: exitFailure, summary: "it would be rejected"}
	}
	down := 0
	for _, u := range answer.GetUpstreams() {
		if u.GetReason() != adminv1.Reason_REASON_UNSPECIFIED || allUnavailable(u) {
			down++
		}
	}
	if down > 0 && down == len(answer.GetUpstreams()) {
		return &failure{code: exitFailure, summary: "every upstream that it could go to is down"}
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

// writeExplanation writes a response for people.
func writeExplanation(w io.Writer, p paint, req *adminv1.ExplainRouteRequest, answer *adminv1.ExplainRouteResponse) error {
	var out bytes.Buffer
	action := lower(answer.GetAction())
	if answer.GetCode() != 0 {
		action += fmt.Sprintf(" %d", answer.GetCode())
	}
	if answer.GetAction() == adminv1.ExplainedAction_EXPLAINED_ACTION_REFUSE {
		action = p.bad(printable(action))
	} else {
		action = p.good(printable(action))
	}
	by := "by no route"
	if answer.GetRoute() != "" {
		by = "by route " + p.strong(printable(answer.GetRoute()))
	}
	fmt.Fprintf(&out, "%s  %s\n", action, by)
	fmt.Fprintf(&out, "  %s\n", printable(answer.GetWhy()))
	if as := answer.GetHost() + answer.GetPath(); as != "" && as != req.GetHost()+req.GetPath() { // normalized, or a default
		fmt.Fprintf(&out, "  %s %s\n", p.faint("read as"), printable(as))
	}
	if path := answer.GetUpstreamPath(); path != "" && path != answer.GetPath() { // rewritten
		fmt.Fprintf(&out, "  %s %s\n", p.faint("sent as"), printable(path))
	}
	if policy := answer.GetTlsPolicy(); policy != nil {
		fmt.Fprintf(&out, "  %s %s\n", p.faint("client TLS"), printable(policyText(policy)))
	}
	for _, u := range answer.GetUpstreams() {
		writeExplainedUpstream(&out, p, u)
	}
	_, err := w.Write(out.Bytes())
	return err
}

// policyText describes the TLS settings that apply to the client: "tls.policies[0] for
// pay.example.com, certificate pay, client certificate required, trust clients".
func policyText(t *adminv1.ExplainedTlsPolicy) string {
	text := t.GetField()
	if len(t.GetHosts()) > 0 {
		text += " for " + few(t.GetHosts())
	}
	text += ", certificate " + few(t.GetCertificates()) + clientAuthText(t.GetClientAuth())
	if len(t.GetClientTrustBundles()) > 0 {
		text += ", trust " + few(t.GetClientTrustBundles())
	}
	return text
}

func writeExplainedUpstream(out *bytes.Buffer, p paint, u *adminv1.ExplainedUpstream) {
	fmt.Fprintf(out, "\n%s  %.4g%%\n", p.strong("upstream "+printable(u.GetName())), u.GetPercent())
	if u.GetReason() != adminv1.Reason_REASON_UNSPECIFIED {
		fmt.Fprintf(out, "  %s\n", p.bad(printable("down: "+why(u))))
	}
	fact := func(name, value string) {
		fmt.Fprintf(out, "  %s %s\n", p.faint(pad(name, 18)), printable(value))
	}
	tls := false
	for _, e := range u.GetEndpoints() {
		tls = tls || e.GetTls()
	}
	if tls {
		certificate := u.GetCertificate()
		switch {
		case certificate == "":
			certificate = "none"
		case u.GetSha256Fingerprint() != "":
			certificate += " (SHA-256 " + u.GetSha256Fingerprint() + ")"
		}
		fact("client certificate", certificate)
		verification := u.GetVerification()
		if verification == adminv1.Verification_VERIFICATION_UNSPECIFIED {
			verification = adminv1.Verification_VERIFICATION_FULL // the same
		}
		if verification != adminv1.Verification_VERIFICATION_INSECURE_SKIP {
			trust := strings.Join(u.GetTrustBundles(), ", ")
			if trust == "" {
				trust = "the system's roots"
			}
			fact("trust", trust)
		}
		fact("verification", word(verification))
	}
	for _, e := range u.GetEndpoints() {
		var notes []string
		if u.GetPassthrough() {
			notes = append(notes, "the client's own TLS")
		} else if !e.GetTls() {
			notes = append(notes, "plaintext")
		} else {
			sni := e.GetServerName()
			if sni == "" {
				sni = "none"
			}
			notes = append(notes, "SNI "+sni)
			if len(e.GetVerifyNames()) > 0 {
				notes = append(notes, "verified for "+strings.Join(e.GetVerifyNames(), " or "))
			}
		}
		if e.GetBackup() {
			notes = append(notes, "backup")
		}
		switch {
		case e.GetDraining():
			notes = append(notes, "draining")
		case e.GetUnavailableReason() != "":
			notes = append(notes, "takes no traffic: "+e.GetUnavailableReason())
		}
		fmt.Fprintf(out, "  %s  %s\n", p.strong(printable(e.GetAddress())), printable(strings.Join(notes, ", ")))
	}
	if n := int(u.GetEndpointCount()) - len(u.GetEndpoints()); n > 0 {
		fmt.Fprintf(out, "  and %d more endpoints\n", n)
	}
}
