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
a copy of the directory or of a backup is useless without the key. The gateway must not
run. Afterwards start it with the same --seal-key-file.

The sealed state is written to a new file, read back, and then put in the place of the
old one. If anything fails, the old one stays as it is. A second run changes nothing.

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

const rekeyLong = `Rekey seals a sealed state with another key. The gateway must not run. Afterwards start
it with the new key.

The state is written to a new file, with a new data key, read back, and then put in the
place of the old one: whenever rekey is interrupted, one of the two keys opens the state,
and a second run completes the change. Backups from before still need the old key.`

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
