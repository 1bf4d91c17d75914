package main

import (
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"github.com/drawbridge-gateway/drawbridge/cmd/drawbridge/client"
	"github.com/drawbridge-gateway/drawbridge/cmd/drawbridge/exit"
	"github.com/drawbridge-gateway/drawbridge/cmd/drawbridge/terminal"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

func newBackup(c *cli) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "backup",
		Short: "Write a copy of the gateway's state to standard output",
		Long: `Backup writes a copy of the state as of one revision to standard output, while the
gateway runs. It holds everything that is stored: resources, private keys and
passphrases, and the revisions to roll back to. Keep it as safe as the data directory.
The copy of a sealed state is sealed with the same key.

The copy is complete only if the exit code is 0. "restore" creates a data directory from it.`,
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
				fmt.Fprintf(c.Err, "Warning: the file has mode %04o and will hold private keys: chmod 600 it, or set umask 077 first\n", info.Mode().Perm())
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
