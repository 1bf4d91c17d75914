package main

import (
	"path/filepath"
	"testing"

	"github.com/drawbridge-gateway/drawbridge/cmd/drawbridge/exit"
)

func TestBackupRestoreAndCheck(t *testing.T) {
	s := gatewayShell(t)
	ctx := t.Context()
	file := writeFile(t, t.TempDir(), "up.yaml", "kind: Upstream\nname: up\nendpoints: [{address: \"127.0.0.1:1\"}]\nplaintext: {}\n")
	s.run(ctx, "apply", "-f", file).want(t, 0)
	b := s.run(ctx, "backup")
	if b.want(t, 0); b.err != "" {
		t.Errorf("%q", b.err)
	}
	dir := tempDir(t)
	backup := writeFile(t, dir, "state.backup", b.out)
	data := filepath.Join(dir, "data")
	s.run(ctx, "store", "check", "--data-dir", data).want(t, exit.Failure, "holds no state")
	s.run(ctx, "restore", filepath.Join(dir, "none"), "--data-dir", data).want(t, exit.Failure, "no such file")
	s.run(ctx, "restore", writeFile(t, dir, "cut", b.out[:len(b.out)/2]), "--data-dir", data).want(t, exit.Failure, "the backup is damaged or incomplete")
	s.run(ctx, "restore", backup, "--data-dir", data).want(t, 0, "Restored revision 1 to "+data+": 1 resource, 1 stored revision.")
	s.run(ctx, "restore", backup, "--data-dir", data).want(t, exit.Failure, "exists: move it away first")
	s.run(ctx, "store", "check", "--data-dir", data).want(t, 0, "Revision 1 is sound: 1 resource, 1 stored revision.")

	socket := "unix:" + filepath.Join(dir, "admin.sock")
	g := start(t, nil, "serve", "--data-dir", data, "--admin", socket)
	g.log.until(t, "ready: version", 1)
	restored := shell{env: map[string]string{"DRAWBRIDGE_ADMIN": socket}}
	if a, b := s.run(ctx, "get", "all", "-o", "json").out, restored.run(ctx, "get", "all", "-o", "json").out; a != b {
		t.Errorf("restored:\n%s\nwant\n%s", b, a)
	}
	s.run(ctx, "store", "check", "--data-dir", data).want(t, exit.Failure, "holds this data directory")
	shell{}.run(ctx, "backup", "--admin", "unix:/nowhere/s").want(t, exit.Unavailable)
}
