// A new process takes over the admin socket of a dead process. If the path is
// not a socket, the file stays unchanged and the start fails.

package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestAdminSocketIsTakenOverFromADeadProcessOnly(t *testing.T) {
	t.Parallel()
	g := startGateway(t)
	g.apply(listener("web", protocolHTTP, ""))
	g.kill()
	if _, err := os.Stat(g.socket); err != nil {
		t.Fatalf("a killed process should leave its socket behind: %v", err)
	}
	g = g.restart()
	if g.listener("web") == nil {
		t.Error("the listener is not back")
	}
	g.stop()
	if _, err := os.Stat(g.socket); err == nil {
		t.Error("a process that was stopped leaves its socket behind")
	}

	file := writeFile(t, filepath.Join(shortDir(t), "notes.txt"), []byte("not a socket"))
	r := command(t, program(t), "serve", "--data-dir", g.dir, "--admin", "unix:"+file)
	if r.code == 0 || !strings.Contains(r.stdout+r.stderr, file) {
		t.Errorf("with a file in its place: %s", r)
	}
	if text, err := os.ReadFile(file); err != nil || string(text) != "not a socket" {
		t.Errorf("the file is now %q, %v", text, err)
	}
}
