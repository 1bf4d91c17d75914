package ca

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/drawbridge-gateway/drawbridge/certs/pki"
	"github.com/drawbridge-gateway/drawbridge/cmd/drawbridge/command"
	"github.com/drawbridge-gateway/drawbridge/cmd/drawbridge/exit"
)

func newInit(env *command.Env) *cobra.Command {
	var (
		name                string
		intermediate, force bool
		life                lifetime
	)
	cmd := &cobra.Command{
		Use:   "init",
		Short: "Make a CA",
		Long: `Init makes a root CA in a directory and, with --intermediate, a CA below it that
issues certificates; the root's key can then be kept elsewhere.`,
		Example: `  drawbridge pki init
  drawbridge pki init --dir corp --name "Corp internal CA" --intermediate --key-type rsa`,
		Args: cobra.NoArgs,
	}
	dir := dirFlag(cmd.Flags())
	cmd.Flags().StringVar(&name, "name", "Drawbridge root CA", "common `name` of the root")
	cmd.Flags().BoolVar(&intermediate, "intermediate", false, "also make an intermediate CA, and issue from it")
	cmd.Flags().Var(&life, "lifetime", "how long the root is valid, such as 87600h or 3650d (default 10 years; an intermediate: 5 years, or as long as the root)")
	cmd.Flags().BoolVar(&force, "force", false, "replace an existing CA: its certificates will no longer be trusted")
	key := keyTypeFlag(cmd)
	cmd.RunE = func(*cobra.Command, []string) error {
		root := pki.CAOptions{CommonName: name, Key: pki.KeyType(*key), NotAfter: life.until()}
		var below *pki.CAOptions
		if intermediate {
			below = &pki.CAOptions{CommonName: name + " intermediate", Key: pki.KeyType(*key)}
		}
		stale := filepath.Join(*dir, "intermediate.pem")
		if _, err := os.Lstat(stale); err == nil && !force {
			return &exit.Error{Code: exit.Conflict, Summary: *dir + " already holds a CA; --force replaces it"}
		}
		var ca *pki.CA
		err := inStaging(*dir, force, func(staging string) (err error) {
			ca, err = pki.Init(staging, root, below)
			return err
		})
		if err != nil {
			return err
		}
		if !intermediate {
			// An intermediate of the old root must not be used with the new one.
			os.Remove(stale)
			os.Remove(filepath.Join(*dir, "intermediate-key.pem"))
		}
		fmt.Fprintf(env.Out, "Made a CA in %s, valid until %s.\n", *dir, ca.Root().Certificate().NotAfter.Format("2006-01-02"))
		fmt.Fprintf(env.Out, "Configure peers to trust %s. Keep %s secret.\n", filepath.Join(*dir, "ca.pem"), filepath.Join(*dir, "ca-key.pem"))
		return nil
	}
	return cmd
}
