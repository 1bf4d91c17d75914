package main

import (
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"github.com/drawbridge-gateway/drawbridge/cmd/drawbridge/command"
	"github.com/drawbridge-gateway/drawbridge/cmd/drawbridge/exit"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

func TestTheCommandLineIsChecked(t *testing.T) {
	for _, tt := range []struct {
		args string
		want string
	}{
		{"aply", `unknown command "aply" for "drawbridge"; did you mean apply?`},
		{"pki isue", `unknown command "isue" for "drawbridge pki"; did you mean issue?`},
		{"apply", "nothing to apply: name a file with -f"},
		{"apply x", "unknown command \"x\" for \"drawbridge apply\""},
		{"get", "accepts between 1 and 2 arg(s), received 0"},
		{"get lisener", "did you mean Listener?"},
		{"get all x", "all takes no NAME"},
		{"get listeners -o xml", "must be table, json or yaml"},
		{"get listeners --color", "unknown flag: --color"},
		{"delete route", "requires at least 2 arg(s)"},
		{"delete rout x", "did you mean Route?"},
		{"pki issue a --lifetime 3", "must be a duration such as 8760h or 365d"},
		{"pki issue a --key-type dsa", "unknown key type"},
	} {
		r := shell{}.run(t.Context(), strings.Fields(tt.args)...)
		r.want(t, exit.Usage, "Error: ", tt.want, "--help'.")
	}
}

func TestEveryCommandHasHelp(t *testing.T) {
	for _, group := range []string{"", "pki"} {
		shell{}.run(t.Context(), strings.Fields(group)...).want(t, exit.OK, "Usage:", "Examples:")
	}
	var walk func(cmd *cobra.Command)
	walk = func(cmd *cobra.Command) {
		if cmd.Short == "" || cmd.Long == "" || cmd.Example == "" {
			t.Errorf("%s lacks a description or an example", cmd.CommandPath())
		}
		if strings.Contains(cmd.Long, "\t") {
			t.Errorf("%s: a tab in the description", cmd.CommandPath())
		}
		for _, sub := range cmd.Commands() {
			walk(sub)
		}
	}
	walk(newRoot(&cli{Env: &command.Env{LookupEnv: os.LookupEnv}}))
	shell{}.run(t.Context(), "--help").want(t, exit.OK, "Exit codes:", "7  not allowed")
	shell{}.run(t.Context(), "completion", "bash").want(t, exit.OK, "__drawbridge")
	shell{}.run(t.Context(), "version").want(t, exit.OK, "drawbridge "+programVersion())
}

func TestFlagsAreReadFromTheEnvironmentToo(t *testing.T) {
	dir := t.TempDir()
	sh := shell{env: map[string]string{
		"DRAWBRIDGE_DIR":      filepath.Join(dir, "a"),
		"DRAWBRIDGE_KEY_TYPE": "ed25519",
		"DRAWBRIDGE_NAME":     "",
	}}
	sh.run(t.Context(), "pki", "init").want(t, exit.OK, filepath.Join(dir, "a"))
	sh.run(t.Context(), "pki", "show").want(t, exit.OK, "Ed25519", "CN=Drawbridge root CA")
	sh.run(t.Context(), "pki", "init", "--dir", filepath.Join(dir, "b")).want(t, exit.OK, filepath.Join(dir, "b"))

	sh.env["DRAWBRIDGE_KEY_TYPE"] = "dsa"
	sh.run(t.Context(), "pki", "issue", "x").want(t, exit.Usage, "environment variable DRAWBRIDGE_KEY_TYPE", "unknown key type")
	sh.run(t.Context(), "pki", "issue", "x", "--key-type", "rsa").want(t, exit.OK, "for a client")
}

func TestKindsAndNamesAreCompleted(t *testing.T) {
	sh := serveFake(t, fakeAdmin{list: func(r *adminv1.ListRoutesRequest) (*adminv1.ListRoutesResponse, error) {
		if r.GetPageToken() == "" {
			return &adminv1.ListRoutesResponse{Routes: []*adminv1.Route{{Name: "first"}}, NextPageToken: "more"}, nil
		}
		return &adminv1.ListRoutesResponse{Routes: []*adminv1.Route{{Name: "second"}}}, nil
	}})
	sh.run(t.Context(), "__complete", "get", "").want(t, exit.OK, "all\nlistener\nroute\nupstream\ncertificate\ntrustbundle\n")
	sh.run(t.Context(), "__complete", "get", "routes", "").want(t, exit.OK, "first\nsecond\n")
	sh.run(t.Context(), "__complete", "delete", "route", "first", "").want(t, exit.OK, "first\nsecond\n")
	sh.run(t.Context(), "__complete", "get", "route", "first", "").want(t, exit.OK, ":4")
	sh.run(t.Context(), "__complete", "get", "listeners", "-o", "").want(t, exit.OK, "json\n")
}

func TestWithoutADefaultDirectoryTheAddressMustBeGiven(t *testing.T) {
	c := &cli{Env: &command.Env{UID: 1, In: strings.NewReader(""), Out: io.Discard, Err: io.Discard, LookupEnv: func(string) (string, bool) { return "", false }}}
	if code := c.run(t.Context(), []string{"status"}); code != exit.Usage {
		t.Errorf("without an address, status exits with %d", code)
	}
}
