package main

import (
	"encoding/json"
	"path/filepath"
	"strings"
	"testing"

	"github.com/drawbridge-gateway/drawbridge/cmd/drawbridge/exit"
)

// gatewayShell starts a gateway and returns a shell for it.
func gatewayShell(t *testing.T, args ...string) shell {
	t.Helper()
	dir := tempDir(t)
	socket := "unix:" + filepath.Join(dir, "admin.sock")
	g := start(t, nil, append([]string{"serve", "--data-dir", filepath.Join(dir, "data"), "--admin", socket}, args...)...)
	g.log.until(t, "ready: version", 1)
	return shell{env: map[string]string{"DRAWBRIDGE_ADMIN": socket}}
}

func TestRevisionsDiffAndRollback(t *testing.T) {
	s := gatewayShell(t)
	dir := t.TempDir()
	one := writeFile(t, dir, "one.yaml", "kind: Upstream\nname: up\nendpoints: [{address: \"127.0.0.1:1\"}]\nplaintext: {}\n")
	two := writeFile(t, dir, "two.yaml", "kind: Upstream\nname: up\nendpoints: [{address: \"127.0.0.1:2\"}, {address: \"127.0.0.1:3\"}]\nplaintext: {}\n---\nkind: Upstream\nname: other\nendpoints: [{address: \"127.0.0.1:1\"}]\n")
	ctx := t.Context()

	s.run(ctx, "diff", "-f", one).want(t, 1, "created Upstream up\n", `  + "127.0.0.1:1"`)
	s.run(ctx, "apply", "-f", one, "--comment", "a bridge").want(t, 0)
	s.run(ctx, "diff", "-f", one).want(t, 0)
	s.run(ctx, "diff", "-f", two).want(t, 1,
		"created Upstream other", "updated Upstream up\n  endpoints[0].address\n  - \"127.0.0.1:1\"\n  + \"127.0.0.1:2\"\n  endpoints[1].address\n  + \"127.0.0.1:3\"\n")
	s.run(ctx, "apply", "-f", two).want(t, 0)
	s.run(ctx, "diff", "-f", one, "--prune").want(t, 1, "deleted Upstream other", `  - "127.0.0.1:3"`)
	s.run(ctx, "diff", "1").want(t, 1, "created Upstream other", "updated Upstream up")
	s.run(ctx, "diff", "2").want(t, 0)
	s.run(ctx, "diff", "2", "1").want(t, 1, "deleted Upstream other")

	s.run(ctx, "revisions").want(t, 0, "REVISION", "uid:", "a bridge", "created Upstream up", "updated Upstream up")
	s.run(ctx, "revisions", "2").want(t, 0, "Revision 2", "created Upstream other", `  + "127.0.0.1:2"`)
	var list struct {
		Revisions []struct{ Revision, Principal, Comment string }
	}
	r := s.run(ctx, "revisions", "-n", "1", "-o", "json")
	if err := json.Unmarshal([]byte(r.out), &list); err != nil || len(list.Revisions) != 1 || list.Revisions[0].Revision != "2" {
		t.Errorf("%v: %s", err, r.out)
	}

	s.run(ctx, "rollback", "1", "--dry-run").want(t, 0, "deleted", "Dry run: revision 2 stays")
	s.run(ctx, "rollback", "1").want(t, 0, "Revision 3 is live")
	s.run(ctx, "diff", "-f", one, "--prune").want(t, 0)
	s.run(ctx, "revisions").want(t, 0, "back to revision 1")
	s.run(ctx, "rollback", "0").want(t, 0, "Revision 4 is live")
	if r := s.run(ctx, "get", "upstreams"); !strings.Contains(r.err, "No upstreams") {
		t.Errorf("the state after a rollback to the empty state: %s%s", r.out, r.err)
	}
}

func TestDiffKeepsExitCode1ForDifferences(t *testing.T) {
	s := gatewayShell(t)
	ctx := t.Context()
	bad := writeFile(t, t.TempDir(), "bad.yaml", "kind: Upstream\nname: up\nendpoints: [{address: nowhere}]\n")
	s.run(ctx, "diff", "-f", bad).want(t, exit.Invalid, "endpoints[0].address")
	s.run(ctx, "diff", "7").want(t, exit.NotFound)
	s.run(ctx, "diff").want(t, exit.Usage)
	s.run(ctx, "diff", "x").want(t, exit.Usage)
	s.run(ctx, "diff", "1", "-f", bad).want(t, exit.Usage)
	s.run(ctx, "diff", "1", "--prune").want(t, exit.Usage)
	s.run(ctx, "rollback", "-1").want(t, exit.Usage)
	s.run(ctx, "rollback", "9").want(t, exit.NotFound)
	s.env["DRAWBRIDGE_ADMIN"] = "unix:/nowhere/s"
	s.run(ctx, "diff", "0").want(t, exit.Unavailable)
}

func TestRevisionHistoryMustBeInBounds(t *testing.T) {
	s := shell{}
	s.run(t.Context(), "serve", "--data-dir", t.TempDir(), "--revision-history", "0").want(t, exit.Usage, "--revision-history")
	s.run(t.Context(), "serve", "--data-dir", t.TempDir(), "--revision-history", "10001").want(t, exit.Usage)
}
