// If a process already uses a data directory, a second one ends with a clear
// error, and the first is not affected.

package e2e

import (
	"path/filepath"
	"strings"
	"testing"
)

func TestSecondProcessOnOneDataDirectory(t *testing.T) {
	t.Parallel()
	g := startGateway(t)
	g.apply(listener("web", protocolHTTP, ""))

	second := command(t, program(t), "serve", "--data-dir", g.dir, "--admin", "unix:"+filepath.Join(shortDir(t), "other.sock"))
	if second.code == 0 {
		t.Errorf("the second process started: %s", second)
	}
	said := second.stdout + second.stderr
	if !strings.Contains(said, g.dir) || !strings.Contains(said, "another") {
		t.Errorf("the second process does not name the conflict: %s", second)
	}
	// A process does not take over the socket of a live process either.
	third := command(t, program(t), "serve", "--data-dir", filepath.Join(shortDir(t), "data"), "--admin", "unix:"+g.socket)
	if third.code == 0 || !strings.Contains(third.stdout+third.stderr, g.socket) {
		t.Errorf("a process whose admin socket is in use: %s", third)
	}
	if code, _ := get(t, "http://"+g.address("web")+"/"); code != 404 {
		t.Errorf("the first process answers %d", code)
	}
}
