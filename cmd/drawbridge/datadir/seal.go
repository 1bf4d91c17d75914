package datadir

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/drawbridge-gateway/drawbridge/cmd/drawbridge/command"
	"github.com/drawbridge-gateway/drawbridge/cmd/drawbridge/exit"
	"github.com/drawbridge-gateway/drawbridge/gateway/store/bolt"
	"github.com/drawbridge-gateway/drawbridge/gateway/store/seal"
)

const sealLong = `Seal encrypts the state in a data directory with a key from a file outside it, so that
a copy of the directory or of a backup is useless without the key. Stop the gateway
first, and then start it with the same --seal-key-file.

Seal writes the sealed state to a new file, reads it back, and then replaces the old file
with it. If anything fails, the old file does not change. A second run changes nothing.

The key file holds 32 random bytes as hexadecimal digits. Only its owner may read it:
  ` + seal.HowToMake + `
Without the key the state is lost: keep a copy of it apart from the backups.`

func newSeal(env *command.Env) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "seal",
		Short:   "Encrypt a data directory's state with a key from a file",
		Long:    sealLong,
		Example: "  drawbridge store seal --data-dir /var/lib/drawbridge --seal-key-file /etc/drawbridge/seal.key",
		Args:    cobra.NoArgs,
	}
	dir, keyFile := dirFlag(env, cmd.Flags()), KeyFlag(cmd.Flags())
	cmd.RunE = func(*cobra.Command, []string) error {
		key, err := requiredKey(env, *keyFile)
		if err != nil {
			return err
		}
		s, err := bolt.Seal(*dir, key)
		if err != nil {
			return failure(*dir, err)
		}
		_, err = fmt.Fprintf(env.Out, "Revision %d is sealed: %s. Start the gateway with this key.\n", s.Revision, contents(s))
		return err
	}
	return cmd
}

const rekeyLong = `Rekey seals a sealed state with another key. Stop the gateway first, and then
start it with the new key.

Rekey writes the state to a new file with a new data key, reads it back, and then replaces
the old file with it. If rekey is interrupted, one of the two keys opens the state, and a
second run completes the change. Earlier backups still need the old key.`

func newRekey(env *command.Env) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "rekey",
		Short:   "Seal a sealed state with another key",
		Long:    rekeyLong,
		Example: "  drawbridge store rekey --data-dir /var/lib/drawbridge --seal-key-file old.key --new-seal-key-file new.key",
		Args:    cobra.NoArgs,
	}
	dir, keyFile := dirFlag(env, cmd.Flags()), KeyFlag(cmd.Flags())
	newFile := cmd.Flags().String("new-seal-key-file", "", "`file` with the new key")
	cmd.RunE = func(*cobra.Command, []string) error {
		if *newFile == "" {
			return exit.UsageError("--new-seal-key-file is missing; make a key with " + seal.HowToMake)
		}
		from, err := requiredKey(env, *keyFile)
		if err != nil {
			return err
		}
		to, err := Key(env, *newFile)
		if err != nil {
			return err
		}
		s, err := bolt.Rekey(*dir, from, to)
		if err != nil {
			return failure(*dir, err)
		}
		_, err = fmt.Fprintf(env.Out, "Revision %d is sealed with the new key: %s. Start the gateway with this key.\n", s.Revision, contents(s))
		return err
	}
	return cmd
}
