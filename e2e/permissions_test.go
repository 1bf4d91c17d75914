// The gateway refuses a data directory or a store that other users may read,
// because it contains private keys. Only the owner may read the files that the
// gateway creates.

package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestWidePermissionsAreRefused(t *testing.T) {
	t.Parallel()
	g := startGateway(t)
	g.apply(listener("web", protocolHTTP, ""))
	store := storeFile(t, g.dir)
	for path, want := range map[string]os.FileMode{g.dir: 0o700, store: 0o600, g.socket: 0o600} {
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != want {
			t.Errorf("%s: mode %v, want %v", path, info.Mode().Perm(), want)
		}
	}
	g.stop()

	for _, c := range []struct {
		path string
		mode os.FileMode
	}{{g.dir, 0o755}, {g.dir, 0o770}, {store, 0o644}, {store, 0o640}} {
		info, err := os.Stat(c.path)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(c.path, c.mode); err != nil {
			t.Fatal(err)
		}
		r := command(t, program(t), "serve", "--data-dir", g.dir, "--admin", "unix:"+filepath.Join(filepath.Dir(g.dir), "admin.sock"))
		if r.code == 0 || !strings.Contains(r.stdout+r.stderr, c.path) {
			t.Errorf("%s with mode %v: %s", filepath.Base(c.path), c.mode, r)
		}
		if err := os.Chmod(c.path, info.Mode().Perm()); err != nil {
			t.Fatal(err)
		}
	}
	g = g.restart()
	if g.listener("web") == nil {
		t.Error("with the modes corrected, the listener is not back")
	}
}
