package main

import (
	"context"
	"encoding/hex"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/drawbridge-gateway/drawbridge/cmd/drawbridge/client"
	"github.com/drawbridge-gateway/drawbridge/cmd/drawbridge/exit"
	"github.com/drawbridge-gateway/drawbridge/cmd/drawbridge/format"
	"github.com/drawbridge-gateway/drawbridge/cmd/drawbridge/terminal"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

const drainLong = `Drain closes the gateway's connections to an upstream within a period. An HTTP
connection accepts no further requests and is closed once its requests have ended
(HTTP/2: GOAWAY), at the latest at the end of the period. A TCP connection is
closed at the end of the period. New connections remain possible. The command
does not wait for the drain.

With --fingerprint it closes only connections with that client certificate, for
example with the old one after a rotation. "status" shows the fingerprints; the
first 8 or more digits are enough.`

func newDrain(c *cli) *cobra.Command {
	var fingerprint string
	var period time.Duration
	cmd := &cobra.Command{
		Use:   "drain UPSTREAM",
		Short: "Drain an upstream's connections, or those with one client certificate",
		Long:  drainLong,
		Example: `  drawbridge drain payments
  drawbridge drain payments --fingerprint 3f9a01c2 --period 5m`,
		Args: cobra.ExactArgs(1),
	}
	cmd.Flags().StringVar(&fingerprint, "fingerprint", "", "only connections made with the client certificate of this SHA-256 `fingerprint`")
	cmd.Flags().DurationVar(&period, "period", 30*time.Second, "how long the drain may take")
	output := format.Flag(cmd)
	conn := client.Flags(c.Env, cmd.Flags())
	cmd.ValidArgsFunction = conn.CompleteName(adminv1.Kind_KIND_UPSTREAM)
	conn.CompleteFlag(cmd, "fingerprint", fingerprints)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if period <= 0 {
			return exit.UsageError("--period: must be more than 0s")
		}
		cl, err := conn.Dial()
		if err != nil {
			return err
		}
		defer cl.Close()
		whole, err := wholeFingerprint(cmd.Context(), cl, args[0], fingerprint)
		if err != nil {
			return cl.Failure(err, nil)
		}
		answer, err := cl.Diagnostics.DrainConnections(cmd.Context(), &adminv1.DrainConnectionsRequest{
			Upstream: args[0], Sha256Fingerprint: whole, Period: durationpb.New(period),
		})
		if err != nil {
			return cl.Failure(err, exit.NoField)
		}
		if *output != format.Table {
			return format.WriteWords(c.Out, *output, answer)
		}
		_, err = fmt.Fprintf(c.Out, "%s to %s will be closed within %v.\n", terminal.Count(int(answer.GetConnections()), "connection"), args[0], period)
		return err
	}
	return cmd
}

// wholeFingerprint returns the fingerprint that begins with text, among the client
// certificates of the connections to an upstream. It returns "" for "".
func wholeFingerprint(ctx context.Context, cl *client.Client, upstream, text string) (string, error) {
	const whole, least = 64, 8 // hexadecimal digits
	digits := strings.ToLower(strings.ReplaceAll(text, ":", ""))
	if digits == "" && text == "" {
		return "", nil
	}
	if _, err := hex.DecodeString(digits + strings.Repeat("0", len(digits)%2)); err != nil || len(digits) < least || len(digits) > whole {
		return "", exit.UsageError(fmt.Sprintf("--fingerprint: must be a SHA-256: all %d hexadecimal digits, or the first ones, at least %d", whole, least))
	}
	if len(digits) == whole {
		return digits, nil
	}
	u, err := cl.UpstreamStatus(ctx, upstream)
	if err != nil {
		return "", err
	}
	var found []string
	for _, f := range fingerprints(u) {
		if strings.HasPrefix(f, digits) {
			found = append(found, f)
		}
	}
	switch len(found) {
	case 0:
		return "", &exit.Error{Code: exit.NotFound, Summary: fmt.Sprintf("no connection to %s was made with a client certificate whose fingerprint begins with %s", upstream, digits)}
	case 1:
		return found[0], nil
	}
	return "", exit.UsageError("--fingerprint: " + digits + " is ambiguous: it matches " + strings.Join(found, ", "))
}

// fingerprints returns the fingerprints of the client certificates of the connections to
// an upstream.
func fingerprints(u *adminv1.UpstreamStatus) []string {
	var out []string
	for _, n := range u.GetConnectionsByCertificate() {
		if n.GetSha256Fingerprint() != "" {
			out = append(out, n.GetSha256Fingerprint())
		}
	}
	return out
}

func newFlushSessions(c *cli) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "flush-sessions UPSTREAM",
		Short: "Discard an upstream's TLS sessions, so that its next handshakes are full",
		Long: `Flush-sessions discards the gateway's cached TLS sessions with an upstream's
endpoints. Open connections continue; the next handshakes are full, and "status"
counts them as FLUSHED.`,
		Example: "  drawbridge flush-sessions payments",
		Args:    cobra.ExactArgs(1),
	}
	output := format.Flag(cmd)
	conn := client.Flags(c.Env, cmd.Flags())
	cmd.ValidArgsFunction = conn.CompleteName(adminv1.Kind_KIND_UPSTREAM)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		cl, err := conn.Dial()
		if err != nil {
			return err
		}
		defer cl.Close()
		answer, err := cl.Diagnostics.FlushSessions(cmd.Context(), &adminv1.FlushSessionsRequest{Upstream: args[0]})
		if err != nil {
			return cl.Failure(err, exit.NoField)
		}
		if *output != format.Table {
			return format.WriteWords(c.Out, *output, answer)
		}
		_, err = fmt.Fprintf(c.Out, "%s with %s discarded.\n", terminal.Count(int(answer.GetFlushed()), "session"), args[0])
		return err
	}
	return cmd
}
