package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/pflag"

	"github.com/drawbridge-gateway/drawbridge/cmd/drawbridge/command"
	"github.com/drawbridge-gateway/drawbridge/cmd/drawbridge/confine"
	"github.com/drawbridge-gateway/drawbridge/cmd/drawbridge/logwriter"
)

// A confined process can use what its flags name: a new flag for a file needs a rule.
func TestEveryFlagForAFileHasARule(t *testing.T) {
	dir := t.TempDir()
	c := &cli{Env: &command.Env{LookupEnv: os.LookupEnv, Out: os.Stdout}}
	o, flags := &serveOptions{}, pflag.NewFlagSet("serve", pflag.ContinueOnError)
	o.addFlags(c, flags)
	paths := map[string]string{} // by flag
	flags.VisitAll(func(f *pflag.Flag) {
		kind, _ := pflag.UnquoteUsage(f)
		path := filepath.Join(dir, f.Name, "x")
		value := path
		switch {
		case f.Name == "program-root" || f.Name == "access-log-format":
			return // the first has a test of its own
		case kind == "PATH" || strings.Contains(f.Usage, "unix:"):
			if kind != "PATH" {
				return
			}
			value = "unix:" + path
		case kind != "file" && kind != "directory":
			return
		}
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if kind == "directory" {
			if err := os.MkdirAll(path, 0o700); err != nil {
				t.Fatal(err)
			}
		}
		if f.Name == "seal-key-file" {
			if err := os.WriteFile(path, []byte(strings.Repeat("5a", 32)), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		paths[f.Name] = path
		if strings.HasPrefix(f.Name, "etcd-") {
			return // these cannot be combined with --config, and are set below
		}
		if err := flags.Set(f.Name, value); err != nil {
			t.Fatal(err)
		}
	})
	if err := flags.Set("admin-tcp", "127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	lines := logwriter.New(os.Stderr)
	defer lines.Close()
	opts, err := o.gateway(c, lines)
	if err != nil {
		t.Fatal(err)
	}
	for name, path := range paths {
		if strings.HasPrefix(name, "etcd-") {
			if err := flags.Set(name, path); err != nil {
				t.Fatal(err)
			}
		}
	}
	rules := confine.Rules(o.paths(c, opts))
	for name, path := range paths {
		if !slices.ContainsFunc(rules, func(r confine.Rule) bool { return r.Path == path || r.Path == filepath.Dir(path) }) {
			t.Errorf("--%s: no rule lets the process use %s", name, path)
		}
	}
	if len(paths) < 12 {
		t.Errorf("only %d flags name files: %v", len(paths), paths)
	}
}
