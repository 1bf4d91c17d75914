package main

import (
	"context"
	"fmt"
	"io"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// A cli holds the program's environment, so that a test can replace it.
type cli struct {
	in        io.Reader
	out, err  io.Writer
	lookupEnv func(string) (string, bool)
	uid       int    // effective user
	program   string // its path, for commands to copy and paste
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
		SilenceErrors: true, // run reports them, once
		SilenceUsage:  true,
		Args:          cobra.ArbitraryArgs,
		RunE:          runGroup,
		PersistentPreRunE: func(cmd *cobra.Command, _ []string) error {
			return c.readEnv(cmd.Flags())
		},
	}
	root.SetIn(c.in)
	root.SetOut(c.out)
	root.SetErr(c.err)
	root.AddGroup(
		&cobra.Group{ID: "gateway", Title: "Run a gateway:"},
		&cobra.Group{ID: "client", Title: "Talk to a running gateway:"},
		&cobra.Group{ID: "why", Title: "Find out why, and act on it:"},
		&cobra.Group{ID: "other", Title: "Other commands:"},
	)
	add := func(group string, cmds ...*cobra.Command) {
		for _, cmd := range cmds {
			cmd.GroupID = group
			root.AddCommand(cmd)
		}
	}
	add("gateway", newServe(c), newRestore(c), newStore(c), newDemo(c))
	add("client", newApply(c), newGet(c), newDelete(c), newStatus(c), newWatch(c))
	add("client", newRevisions(c), newDiff(c), newRollback(c), newConfirm(c), newBackup(c))
	add("why", newProbe(c), newExplain(c), newDrain(c), newFlushSessions(c), newWhoami(c))
	add("other", newPKI(c), newVersion(c))
	root.SetHelpCommandGroupID("other")
	root.SetCompletionCommandGroupID("other")
	return root
}

// runGroup runs a command that only has subcommands. Cobra checks the names of
// subcommands only at the root.
func runGroup(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return cmd.Help()
	}
	msg := fmt.Sprintf("unknown command %q for %q", args[0], cmd.CommandPath())
	cmd.SuggestionsMinimumDistance = 2
	if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
		msg += "; did you mean " + strings.Join(near, " or ") + "?"
	}
	return usageError(msg)
}

// run executes a command line and returns the exit code.
func (c *cli) run(ctx context.Context, args []string) int {
	root := newRoot(c)
	started := false
	mark(root, &started)
	root.SetArgs(args)
	cmd, err := root.ExecuteContextC(ctx)
	if err == nil {
		return exitOK
	}
	f := asFailure(err)
	if f == errDiffers { // diff has shown the differences
		return f.code
	}
	if !started && f.code == exitFailure {
		// Cobra's own errors have no type. An error before a command runs is about the
		// command line.
		f.code = exitUsage
	}
	f.print(c.err, c.paint(c.err))
	if f.code == exitUsage {
		fmt.Fprintf(c.err, "See '%s --help'.\n", cmd.CommandPath())
	}
	return f.code
}

// mark makes every command below cmd set started before it runs.
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

// readEnv sets each flag that is not on the command line from the environment.
func (c *cli) readEnv(flags *pflag.FlagSet) error {
	var first error
	flags.VisitAll(func(f *pflag.Flag) {
		if f.Changed || f.Name == "help" {
			return
		}
		name := "DRAWBRIDGE_" + strings.ToUpper(strings.ReplaceAll(f.Name, "-", "_"))
		value, ok := c.lookupEnv(name)
		if !ok || value == "" {
			return
		}
		if err := flags.Set(f.Name, value); err != nil && first == nil {
			first = usageError(fmt.Sprintf("environment variable %s: %v", name, err))
		}
	})
	return first
}

// defaultDataDir returns the default data directory, which also holds the default admin
// socket. It returns "" if there is no suitable directory.
func (c *cli) defaultDataDir() string {
	if c.uid == 0 {
		return "/var/lib/drawbridge"
	}
	if dir, _ := c.lookupEnv("XDG_STATE_HOME"); filepath.IsAbs(dir) {
		return filepath.Join(dir, "drawbridge")
	}
	home, _ := c.lookupEnv("HOME")
	if home == "" {
		return ""
	}
	return filepath.Join(home, ".local", "state", "drawbridge")
}
