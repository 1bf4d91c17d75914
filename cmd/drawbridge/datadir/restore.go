package datadir

import (
	"bufio"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/drawbridge-gateway/drawbridge/cmd/drawbridge/command"
	"github.com/drawbridge-gateway/drawbridge/gateway/store/bolt"
)

const restoreLong = `Restore creates the state in a data directory from a backup. If FILE is "-", restore
reads standard input. It checks the whole backup first, and never replaces an existing
state.

A gateway that starts with the directory has the revision, keys and etags of the backup.
Its watch clients start over. If a revision was pending when the backup was made, the
gateway rolls back to the revision before it.

The backup of a sealed state is sealed: the gateway needs the same key to start. With
the key, restore checks every value; without it, only the checksums.`

// NewRestore returns the command that creates a data directory from a backup.
func NewRestore(env *command.Env) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "restore FILE",
		Short:   "Create a data directory from a backup",
		Long:    restoreLong,
		Example: "  drawbridge restore state.backup --data-dir /var/lib/drawbridge",
		Args:    cobra.ExactArgs(1),
	}
	dir, keyFile := dirFlag(env, cmd.Flags()), KeyFlag(cmd.Flags())
	cmd.RunE = func(_ *cobra.Command, args []string) error {
		key, err := Key(env, *keyFile)
		if err != nil {
			return err
		}
		in := env.In
		if args[0] != "-" {
			f, err := os.Open(args[0])
			if err != nil {
				return err
			}
			defer f.Close()
			in = f
		}
		s, err := bolt.Restore(*dir, bufio.NewReader(in), key)
		if err != nil {
			return err
		}
		_, err = fmt.Fprintf(env.Out, "Restored revision %d to %s: %s.\n", s.Revision, *dir, description(s))
		return err
	}
	return cmd
}
