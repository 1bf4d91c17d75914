// Package datadir has the commands for the data directory of a stopped gateway:
// `drawbridge restore` and `drawbridge store`.
//
// Package gateway/store/bolt does the work; package datadir handles flags and messages.
package datadir

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/drawbridge-gateway/drawbridge/cmd/drawbridge/command"
	"github.com/drawbridge-gateway/drawbridge/cmd/drawbridge/exit"
	"github.com/drawbridge-gateway/drawbridge/cmd/drawbridge/terminal"
	"github.com/drawbridge-gateway/drawbridge/gateway/store/bolt"
	"github.com/drawbridge-gateway/drawbridge/gateway/store/seal"
)

// NewStore returns the command for the state in a data directory, with its subcommands.
func NewStore(env *command.Env) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "store",
		Short:   "Check, seal, rekey or migrate the state of a stopped gateway",
		Long:    "Store checks, seals and rekeys the state in a data directory, and moves it to etcd or back. Stop the gateway first.",
		Example: "  drawbridge store check --data-dir /var/lib/drawbridge",
		RunE:    command.RunGroup,
	}
	cmd.AddCommand(newCheck(env), newSeal(env), newRekey(env), newMigrate(env))
	return cmd
}

func dirFlag(env *command.Env, flags *pflag.FlagSet) *string {
	return flags.String("data-dir", env.DefaultDataDir(), "`directory` of the gateway's state")
}

// KeyFlag adds --seal-key-file to the flags.
func KeyFlag(flags *pflag.FlagSet) *string {
	return flags.String("seal-key-file", "", "`file` with the key that seals the state: 32 bytes as hexadecimal digits (default: the systemd credential "+seal.Credential+", if there is one)")
}

// Key returns the key in the file at path, or in the systemd credential if path is "".
// It returns nil if path is "" and there is no such credential.
func Key(env *command.Env, path string) (*seal.Key, error) {
	credentials, _ := env.LookupEnv("CREDENTIALS_DIRECTORY")
	if path == "" {
		if credentials == "" {
			return nil, nil
		}
		path = filepath.Join(credentials, seal.Credential)
		if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
			return nil, nil
		}
	}
	return seal.ReadKey(path, credentials)
}

// requiredKey is Key for a command that needs a key.
func requiredKey(env *command.Env, path string) (*seal.Key, error) {
	k, err := Key(env, path)
	if k == nil && err == nil {
		return nil, exit.UsageError("--seal-key-file is missing; make a key with " + seal.HowToMake)
	}
	return k, err
}

// failure adds the directory to an error about missing state.
func failure(dir string, err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%s holds no state: %w", dir, err)
	}
	return err
}

// contents describes the contents of a database.
func contents(s bolt.Summary) string {
	return terminal.Count(s.Resources, "resource") + ", " + terminal.Count(s.Records, "stored revision")
}

// description returns contents, and "sealed" if the database is sealed.
func description(s bolt.Summary) string {
	if s.Sealed {
		return contents(s) + ", sealed"
	}
	return contents(s)
}
