package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/drawbridge-gateway/drawbridge/cmd/drawbridge/ca"
	"github.com/drawbridge-gateway/drawbridge/cmd/drawbridge/command"
	"github.com/drawbridge-gateway/drawbridge/cmd/drawbridge/connections"
	"github.com/drawbridge-gateway/drawbridge/cmd/drawbridge/datadir"
	"github.com/drawbridge-gateway/drawbridge/cmd/drawbridge/demo"
	"github.com/drawbridge-gateway/drawbridge/cmd/drawbridge/exit"
	"github.com/drawbridge-gateway/drawbridge/cmd/drawbridge/gateways"
	"github.com/drawbridge-gateway/drawbridge/cmd/drawbridge/top"
	"github.com/drawbridge-gateway/drawbridge/cmd/drawbridge/upgrade"
	"github.com/drawbridge-gateway/drawbridge/gateway/handover"
)

// A cli makes the commands of one run of the program.
type cli struct {
	*command.Env
	program     handover.Program      // this program, for an upgrade
	predecessor *handover.Predecessor // the process to replace in an upgrade; nil: none
	ownsProcess bool                  // serve restricts the process; false in tests, which share theirs
}

const rootLong = `Drawbridge is a TLS bridging gateway: it accepts plaintext TCP, HTTP or TLS and
forwards it to upstreams over verified TLS or mutual TLS. All of its configuration
can change at run time, over a gRPC admin service that most commands here use.

Every flag is also read from the environment: --admin-tls-ca from
DRAWBRIDGE_ADMIN_TLS_CA. A flag on the command line wins.

Exit codes:
  0  done
  1  failed for another reason; probe: a handshake failed;
     explain: the request would be rejected; diff: something differs
  2  the command line is wrong
  3  the input is wrong: a file, a resource (INVALID_ARGUMENT)
  4  no such resource (NOT_FOUND)
  5  in conflict with the current state (ABORTED, FAILED_PRECONDITION)
  6  the gateway cannot be reached or cannot serve (UNAVAILABLE)
  7  not allowed (UNAUTHENTICATED, PERMISSION_DENIED)`

// newRoot returns the whole tree of commands.
func newRoot(c *cli) *cobra.Command {
	root := &cobra.Command{
		Use:           "drawbridge",
		Short:         "A TLS bridging gateway that is configured at run time",
		Long:          rootLong,
		Example:       "  drawbridge demo\n  drawbridge serve --config drawbridge.yaml\n  drawbridge apply -f drawbridge.yaml\n  drawbridge get listeners\n  drawbridge probe payments",
		SilenceErrors: true, // run reports errors
		SilenceUsage:  true,
		Args:          cobra.ArbitraryArgs,
		RunE:          command.RunGroup,
		PersistentPreRunE: func(cmd *cobra.Command, _ []string) error {
			return c.ReadFlags(cmd.Flags())
		},
	}
	root.SetIn(c.In)
	root.SetOut(c.Out)
	root.SetErr(c.Err)
	root.AddGroup(
		&cobra.Group{ID: "gateway", Title: "Run a gateway:"},
		&cobra.Group{ID: "client", Title: "Talk to a running gateway:"},
		&cobra.Group{ID: "diagnose", Title: "Diagnose, and act on live traffic:"},
		&cobra.Group{ID: "other", Title: "Other commands:"},
	)
	add := func(group string, cmds ...*cobra.Command) {
		for _, cmd := range cmds {
			cmd.GroupID = group
			root.AddCommand(cmd)
		}
	}
	add("gateway", newServe(c), upgrade.New(c.Env), datadir.NewRestore(c.Env), datadir.NewStore(c.Env), demo.New(c.Env))
	add("client", newApply(c), newGet(c), newDelete(c), newStatus(c), newWatch(c), gateways.New(c.Env))
	add("client", newRevisions(c), newDiff(c), newRollback(c), newConfirm(c), newBackup(c))
	add("diagnose", newProbe(c), newExplain(c), connections.New(c.Env), top.New(c.Env), newDrain(c), newFlushSessions(c), newWhoami(c))
	add("other", ca.New(c.Env), newVersion(c))
	root.SetHelpCommandGroupID("other")
	root.SetCompletionCommandGroupID("other")
	return root
}

// run executes a command line and returns the exit code.
func (c *cli) run(ctx context.Context, args []string) int {
	root := newRoot(c)
	started := false
	mark(root, &started)
	root.SetArgs(args)
	cmd, err := root.ExecuteContextC(ctx)
	if err == nil {
		return exit.OK
	}
	f := exit.AsError(err)
	c.predecessor.Fail(f)
	if f == errDiffers { // diff has already shown the differences
		return f.Code
	}
	if !started && f.Code == exit.Failure {
		// Cobra's own errors have no type. An error before a command runs is about the
		// command line.
		f.Code = exit.Usage
	}
	f.Print(c.Err, c.Paint(c.Err))
	if f.Code == exit.Usage {
		fmt.Fprintf(c.Err, "See '%s --help'.\n", cmd.CommandPath())
	}
	return f.Code
}

// mark makes every command below cmd set started when it begins to run.
func mark(cmd *cobra.Command, started *bool) {
	if run := cmd.RunE; run != nil {
		cmd.RunE = func(cmd *cobra.Command, args []string) error {
			*started = true
			return run(cmd, args)
		}
	}
	for _, sub := range cmd.Commands() {
		mark(sub, started)
	}
}
