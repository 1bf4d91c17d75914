// Package ca has the commands of `drawbridge pki`, for a private CA in a directory.
//
// Package certs/pki makes the certificates; package ca handles flags, files and
// tables.
package ca

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/drawbridge-gateway/drawbridge/certs/pki"
	"github.com/drawbridge-gateway/drawbridge/cmd/drawbridge/command"
	"github.com/drawbridge-gateway/drawbridge/cmd/drawbridge/exit"
)

// New returns the command with its subcommands.
func New(env *command.Env) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "pki",
		Short: "Make a private CA on disk, issue certificates, show them",
		Long: `Pki keeps a private certification authority in a directory of PEM files, which
nginx, OpenSSL and Java can read:

  ca.pem  ca-key.pem                        the root; peers must trust ca.pem
  intermediate.pem  intermediate-key.pem    the intermediate, if there is one
  NAME.pem  NAME-key.pem                    each certificate issued, with its intermediates

Keys have mode 0600. No file is overwritten without --force.`,
		Example: `  drawbridge pki init --dir pki
  drawbridge pki issue --dir pki web --dns web.internal
  drawbridge pki issue --dir pki gateway --client
  drawbridge pki show --dir pki`,
		Args: cobra.ArbitraryArgs,
		RunE: command.RunGroup,
	}
	cmd.AddCommand(newInit(env), newIssue(env), newShow(env))
	return cmd
}

func dirFlag(flags *pflag.FlagSet) *string {
	return flags.String("dir", "pki", "`directory` of the CA")
}

func keyTypeFlag(cmd *cobra.Command) *keyType {
	var k keyType
	cmd.Flags().Var(&k, "key-type", "`kind` of key: ecdsa (P-256), rsa (3072 bits), "+strings.Join(pki.KeyTypeNames(), ", "))
	return &k
}

// A keyType is a flag for a pki.KeyType that also accepts names of key families.
type keyType pki.KeyType

// String, Set and Type implement pflag.Value.
func (k *keyType) String() string { return pki.KeyType(*k).String() }
func (k *keyType) Type() string   { return "kind" }

func (k *keyType) Set(s string) error {
	switch strings.ToLower(s) {
	case "ecdsa":
		s = pki.ECDSAP256.String()
	case "rsa":
		s = pki.RSA3072.String()
	}
	v, err := pki.ParseKeyType(s)
	*k = keyType(v)
	return err
}

// A lifetime is a flag for a duration that also accepts days.
type lifetime time.Duration

// Type implements pflag.Value.
func (l *lifetime) Type() string { return "duration" }

// String returns "" for the default, which each flag's help states.
func (l *lifetime) String() string {
	if *l == 0 {
		return ""
	}
	return time.Duration(*l).String()
}

// Set accepts a duration such as 8760h or 365d.
func (l *lifetime) Set(s string) error {
	d, err := time.ParseDuration(s)
	if days, ok := strings.CutSuffix(s, "d"); ok {
		var n float64
		n, err = strconv.ParseFloat(days, 64)
		d = time.Duration(n * 24 * float64(time.Hour))
	}
	if err != nil || d <= 0 {
		return fmt.Errorf("must be a duration such as 8760h or 365d")
	}
	*l = lifetime(d)
	return nil
}

// until returns the end of a lifetime that begins now, or the zero time if l is unset.
func (l lifetime) until() time.Time {
	if l == 0 {
		return time.Time{}
	}
	return time.Now().Add(time.Duration(l))
}

// inStaging calls make with a new directory beside dir, then moves the files in it to
// dir. It replaces existing files only if force is set. As far as the file system
// allows, it moves either all files or no file.
func inStaging(dir string, force bool, make func(staging string) error) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	staging, err := os.MkdirTemp(dir, ".new-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(staging)
	if err := make(staging); err != nil {
		return err
	}
	made, err := os.ReadDir(staging)
	if err != nil {
		return err
	}
	for _, f := range made {
		path := filepath.Join(dir, f.Name())
		if _, err := os.Lstat(path); err == nil && !force {
			return &exit.Error{Code: exit.Conflict, Summary: path + " exists already; --force replaces it"}
		}
	}
	for _, f := range made {
		if err := os.Rename(filepath.Join(staging, f.Name()), filepath.Join(dir, f.Name())); err != nil {
			return err
		}
	}
	return nil
}
