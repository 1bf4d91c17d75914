package datadir

import (
	"bufio"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/drawbridge-gateway/drawbridge/cmd/drawbridge/command"
	"github.com/drawbridge-gateway/drawbridge/gateway/store/bolt"
)

const restoreLong = `Restore makes the state of a data directory from a backup; FILE is "-" for standard
input. The whole backup is checked first. It never replaces a state that exists.

A gateway that is started with the directory has the revision, the keys and the etags
of the backup. Clients that watch start over. If the backup was made while a revision
was pending, the gateway rolls back to the revision before.

The backup of a sealed state is sealed: the gateway needs the same key to start. With
the key, restore checks every value, and without it only the checksums.`

// NewRestore returns the command that makes a data directory of a backup.
func NewRestore(env *command.Env) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "restore FILE",
		Short:   "Make a data directory of a backup",
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
