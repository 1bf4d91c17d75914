package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"github.com/spf13/cobra"

	"github.com/drawbridge-gateway/drawbridge/cmd/drawbridge/client"
	"github.com/drawbridge-gateway/drawbridge/cmd/drawbridge/command"
	"github.com/drawbridge-gateway/drawbridge/cmd/drawbridge/exit"
	"github.com/drawbridge-gateway/drawbridge/cmd/drawbridge/terminal"
	"github.com/drawbridge-gateway/drawbridge/gateway/store/bolt"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

func newBackup(c *cli) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "backup",
		Short: "Write a copy of the gateway's state to standard output",
		Long: `Backup writes a copy of the state as of one revision to standard output, while the
gateway runs. It holds everything that is stored: resources, private keys and
passphrases, and the revisions to roll back to. Keep it as safe as the data directory.

The copy is complete if the exit code is 0. "restore" makes a data directory of it.`,
		Example: "  (umask 077; drawbridge backup > state.backup)",
		Args:    cobra.NoArgs,
	}
	conn := client.Flags(c.Env, cmd.Flags())
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if terminal.IsTerminal(c.Out) {
			return exit.UsageError("standard output is a terminal: redirect it, as in \"drawbridge backup > state.backup\"")
		}
		if f, ok := c.Out.(*os.File); ok {
			if info, err := f.Stat(); err == nil && info.Mode().IsRegular() && info.Mode().Perm()&0o077 != 0 {
				fmt.Fprintf(c.Err, "Warning: the file has mode %04o and will hold private keys: chmod 600 it, or set umask 077 before\n", info.Mode().Perm())
			}
		}
		cl, err := conn.Dial()
		if err != nil {
			return err
		}
		defer cl.Close()
		stream, err := cl.Backup(cmd.Context(), &adminv1.BackupRequest{})
		if err != nil {
			return cl.Failure(err, exit.NoField)
		}
		for {
			part, err := stream.Recv()
			if errors.Is(err, io.EOF) {
				return nil
			}
			if err != nil {
				return cl.Failure(err, exit.NoField)
			}
			if _, err := c.Out.Write(part.GetData()); err != nil {
				return err
			}
		}
	}
	return cmd
}

func newRestore(c *cli) *cobra.Command {
	var dir string
	cmd := &cobra.Command{
		Use:   "restore FILE",
		Short: "Make a data directory of a backup",
		Long: `Restore makes the state of a data directory from a backup; FILE is "-" for standard
input. The whole backup is checked first. It never replaces a state that exists.

A gateway that is started with the directory has the revision, the keys and the etags
of the backup. Clients that watch start over. If the backup was made while a revision
was pending, the gateway rolls back to the revision before.`,
		Example: "  drawbridge restore state.backup --data-dir /var/lib/drawbridge",
		Args:    cobra.ExactArgs(1),
	}
	cmd.Flags().StringVar(&dir, "data-dir", c.DefaultDataDir(), "`directory` to make")
	cmd.RunE = func(_ *cobra.Command, args []string) error {
		in := c.In
		if args[0] != "-" {
			f, err := os.Open(args[0])
			if err != nil {
				return err
			}
			defer f.Close()
			in = f
		}
		s, err := bolt.Restore(dir, bufio.NewReader(in), nil)
		if err != nil {
			return err
		}
		_, err = fmt.Fprintf(c.Out, "Restored revision %d to %s: %s.\n", s.Revision, dir, contents(s))
		return err
	}
	return cmd
}

func newStore(c *cli) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "store",
		Short:   "Check the state of a gateway that does not run",
		Long:    "Store has the commands for the state in a data directory. No gateway may run on it.",
		Example: "  drawbridge store check --data-dir /var/lib/drawbridge",
		RunE:    command.RunGroup,
	}
	cmd.AddCommand(newStoreCheck(c))
	return cmd
}

func newStoreCheck(c *cli) *cobra.Command {
	var dir string
	cmd := &cobra.Command{
		Use:   "check",
		Short: "Read all of a data directory's state, and report damage",
		Long: `Check reads every record of the state and verifies its checksums, as a gateway does
when it starts. It changes nothing. The gateway must not run.

The exit code is 0 if the state is sound, and 1 if not.`,
		Example: "  drawbridge store check --data-dir /var/lib/drawbridge",
		Args:    cobra.NoArgs,
	}
	cmd.Flags().StringVar(&dir, "data-dir", c.DefaultDataDir(), "`directory` to check")
	cmd.RunE = func(*cobra.Command, []string) error {
		s, err := bolt.Check(dir, nil)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return fmt.Errorf("%s holds no state: %w", dir, err)
		case err != nil:
			return err
		}
		_, err = fmt.Fprintf(c.Out, "Revision %d is sound: %s.\n", s.Revision, contents(s))
		return err
	}
	return cmd
}

// contents describes what a database holds.
func contents(s bolt.Summary) string {
	return fmt.Sprintf("%d resources, %d stored revisions", s.Resources, s.Records)
}
