// Package connections has the command "connections", which lists or closes the open
// connections of a running gateway.
package connections

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/drawbridge-gateway/drawbridge/cmd/drawbridge/client"
	"github.com/drawbridge-gateway/drawbridge/cmd/drawbridge/command"
	"github.com/drawbridge-gateway/drawbridge/cmd/drawbridge/exit"
	"github.com/drawbridge-gateway/drawbridge/cmd/drawbridge/format"
	"github.com/drawbridge-gateway/drawbridge/cmd/drawbridge/terminal"
	"github.com/drawbridge-gateway/drawbridge/cmd/drawbridge/view"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

const long = `Connections lists the open connections of the running gateway, the oldest first:
  - clients of TCP listeners, with the endpoint that each is connected to
  - clients of HTTP listeners, with the route and the endpoint of their latest
    request
  - connections to endpoints that do not belong to a single client, such as pooled ones

Flags select connections. A connection must match all flags; if a flag is
repeated, it must match one of its values.

RECEIVED and SENT are the bytes on the client's side or, without a client, on the
endpoint's side, TLS included. -o json and yaml print both sides and their TLS.

With --close the gateway closes the connections. Without --grace it closes them at
once, even during requests. With --grace an HTTP connection accepts no further
requests and closes when its requests have ended (HTTP/2: GOAWAY), at the latest
after the grace period; other connections close when the period ends. To close every
connection, use --close --all.`

// New returns the command.
func New(e *command.Env) *cobra.Command {
	var shuts, all bool
	var grace time.Duration
	cmd := &cobra.Command{
		Use:   "connections",
		Short: "List open connections, or close them",
		Long:  long,
		Example: `  drawbridge connections
  drawbridge connections --listener db --min-age 1h
  drawbridge connections --identity spiffe://corp/batch --close --grace 30s
  drawbridge connections -o json | jq '.connections[].client.tls.peer'`,
		Args: cobra.NoArgs,
	}
	filter := filterFlags(cmd.Flags())
	cmd.Flags().BoolVar(&shuts, "close", false, "close the connections instead of listing them")
	cmd.Flags().DurationVar(&grace, "grace", 0, "with --close: how long the connections may take to finish their work; at most 24h")
	cmd.Flags().BoolVar(&all, "all", false, "with --close: close every connection")
	output := format.Flag(cmd)
	conn := client.Flags(e, cmd.Flags())
	conn.CompleteFlag(cmd, "upstream", func(u *adminv1.UpstreamStatus) []string { return []string{u.GetName()} })
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		f, err := filter(cmd.Flags())
		if err != nil {
			return err
		}
		isEmpty := proto.Size(f) == 0
		switch {
		case !shuts && (all || cmd.Flags().Changed("grace")):
			return exit.UsageError("--all and --grace need --close")
		case shuts && isEmpty && !all:
			return exit.UsageError("--close needs a flag that selects connections, or --all")
		case shuts && !isEmpty && all:
			return exit.UsageError("--all selects every connection: leave out the flags that select some")
		case grace < 0:
			return exit.UsageError("--grace: must not be negative")
		}
		cl, err := conn.Dial()
		if err != nil {
			return err
		}
		defer cl.Close()
		if !shuts {
			found, err := cl.Connections(cmd.Context(), f)
			if err != nil {
				return cl.Failure(err, exit.NoField)
			}
			if *output != format.Table {
				return format.WriteWords(e.Out, *output, &adminv1.ListConnectionsResponse{Connections: found})
			}
			return e.WriteTable(view.ConnectionTable(found))
		}
		answer, err := cl.Diagnostics.CloseConnections(cmd.Context(), &adminv1.CloseConnectionsRequest{ConnectionFilter: f, All: all, Grace: durationpb.New(grace)})
		if err != nil {
			return cl.Failure(err, exit.NoField)
		}
		if *output != format.Table {
			return format.WriteWords(e.Out, *output, answer)
		}
		n := terminal.Count(int(answer.GetConnections()), "connection")
		if grace == 0 {
			_, err = fmt.Fprintf(e.Out, "%s closed.\n", n)
		} else {
			_, err = fmt.Fprintf(e.Out, "%s will be closed within %v.\n", n, grace)
		}
		return err
	}
	return cmd
}

// filterFlags adds the flags that select connections. It returns a function that builds
// the filter from them.
func filterFlags(flags *pflag.FlagSet) func(*pflag.FlagSet) (*adminv1.ConnectionFilter, error) {
	f := &adminv1.ConnectionFilter{}
	var minAge, maxAge time.Duration
	flags.StringSliceVar(&f.Ids, "id", nil, "only the connection with this `id`")
	flags.StringSliceVar(&f.Listeners, "listener", nil, "only clients of the listener with this `name`")
	flags.StringSliceVar(&f.Routes, "route", nil, "only connections that use the route with this `name`")
	flags.StringSliceVar(&f.Upstreams, "upstream", nil, "only connections to the upstream with this `name`")
	flags.StringSliceVar(&f.Endpoints, "endpoint", nil, "only connections to the endpoint with this `address`")
	flags.StringSliceVar(&f.ClientAddresses, "client", nil, "only clients with this IP `address`, or within this prefix, such as 10.0.0.0/8")
	flags.StringArrayVar(&f.ClientIdentities, "identity", nil, "only clients whose verified certificate has this `name`: \"spiffe://corp/pay\", \"DNS:a.example\", \"CN=pay\"")
	flags.StringSliceVar(&f.Sha256Fingerprints, "fingerprint", nil, "only connections whose client certificate, or the gateway's certificate to the endpoint, has this SHA-256 `fingerprint`")
	flags.Int64Var(&f.MinRevision, "min-revision", 0, "only connections that began at this `revision` or later")
	flags.Int64Var(&f.MaxRevision, "max-revision", 0, "only connections that began at this `revision` or earlier")
	flags.DurationVar(&minAge, "min-age", 0, "only connections that are at least this old")
	flags.DurationVar(&maxAge, "max-age", 0, "only connections that are at most this old")
	return func(flags *pflag.FlagSet) (*adminv1.ConnectionFilter, error) {
		for _, limit := range []struct {
			flag string
			age  time.Duration
			to   **durationpb.Duration
		}{{"min-age", minAge, &f.MinAge}, {"max-age", maxAge, &f.MaxAge}} {
			if limit.age < 0 {
				return nil, exit.UsageError("--" + limit.flag + ": must not be negative")
			}
			if flags.Changed(limit.flag) {
				*limit.to = durationpb.New(limit.age)
			}
		}
		return f, nil
	}
}
