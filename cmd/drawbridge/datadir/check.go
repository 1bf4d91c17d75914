package datadir

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/drawbridge-gateway/drawbridge/cmd/drawbridge/command"
	"github.com/drawbridge-gateway/drawbridge/gateway/store/bolt"
)

func newCheck(env *command.Env) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "check",
		Short: "Check the state in a data directory for damage",
		Long: `Check reads every record of the state and verifies its checksums, as a gateway does
when it starts. It changes nothing. Stop the gateway first. Check verifies the values of
a sealed state only if it has the key.

The exit code is 0 if the state is sound, otherwise 1.`,
		Example: "  drawbridge store check --data-dir /var/lib/drawbridge",
		Args:    cobra.NoArgs,
	}
	dir, keyFile := dirFlag(env, cmd.Flags()), KeyFlag(cmd.Flags())
	cmd.RunE = func(*cobra.Command, []string) error {
		key, err := Key(env, *keyFile)
		if err != nil {
			return err
		}
		s, err := bolt.Check(*dir, key)
		if err != nil {
			return failure(*dir, err)
		}
		fmt.Fprintf(env.Out, "Revision %d is sound: %s.\n", s.Revision, description(s))
		if !s.Opened {
			fmt.Fprintln(env.Out, "Only its checksums were verified: --seal-key-file verifies its values, too.")
		}
		return nil
	}
	return cmd
}
