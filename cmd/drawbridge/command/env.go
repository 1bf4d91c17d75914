// Package command gives every command its streams, environment variables and user.
//
// Commands use an Env, never the process itself, so that tests can replace it.
package command

import (
	"fmt"
	"io"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/drawbridge-gateway/drawbridge/cmd/drawbridge/exit"
	"github.com/drawbridge-gateway/drawbridge/cmd/drawbridge/terminal"
)

// An Env is the environment of one run of the program.
type Env struct {
	In        io.Reader
	Out, Err  io.Writer
	LookupEnv func(name string) (value string, ok bool)
	UID       int    // the effective user
	Program   string // the path of the program, shown in examples to copy and paste
	Version   string // the version of the program
}

// RunGroup is the RunE of a command that only has subcommands. It rejects unknown names,
// because Cobra does so only at the root.
func RunGroup(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return cmd.Help()
	}
	msg := fmt.Sprintf("unknown command %q for %q", args[0], cmd.CommandPath())
	cmd.SuggestionsMinimumDistance = 2
	if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
		msg += "; did you mean " + strings.Join(near, " or ") + "?"
	}
	return exit.UsageError(msg)
}

// ReadFlags sets each flag that is not on the command line from its environment variable:
// --data-dir from DRAWBRIDGE_DATA_DIR.
func (e *Env) ReadFlags(flags *pflag.FlagSet) error {
	var first error
	flags.VisitAll(func(f *pflag.Flag) {
		if f.Changed || f.Name == "help" {
			return
		}
		name := "DRAWBRIDGE_" + strings.ToUpper(strings.ReplaceAll(f.Name, "-", "_"))
		value, ok := e.LookupEnv(name)
		if !ok || value == "" {
			return
		}
		if err := flags.Set(f.Name, value); err != nil && first == nil {
			first = exit.UsageError(fmt.Sprintf("environment variable %s: %v", name, err))
		}
	})
	return first
}

// DefaultDataDir returns the default data directory, which also holds the default admin
// socket. It returns "" if there is no suitable directory.
func (e *Env) DefaultDataDir() string {
	if e.UID == 0 {
		return "/var/lib/drawbridge"
	}
	if dir, _ := e.LookupEnv("XDG_STATE_HOME"); filepath.IsAbs(dir) {
		return filepath.Join(dir, "drawbridge")
	}
	home, _ := e.LookupEnv("HOME")
	if home == "" {
		return ""
	}
	return filepath.Join(home, ".local", "state", "drawbridge")
}

// Paint returns the Paint for w. It adds colors if w is a terminal, unless the
// environment disables them (no-color.org).
func (e *Env) Paint(w io.Writer) terminal.Paint {
	if v, _ := e.LookupEnv("NO_COLOR"); v != "" {
		return false
	}
	if term, _ := e.LookupEnv("TERM"); term == "dumb" {
		return false
	}
	return terminal.Paint(terminal.IsTerminal(w))
}

// WriteTable writes t to the standard output.
func (e *Env) WriteTable(t *terminal.Table) error { return t.Write(e.Out, e.Paint(e.Out)) }
