// The admin socket is taken over from a process that died, and from nothing
// else: a file that is no socket is left alone, and the program says so.

package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestAdminSocketIsTakenOverFromTheDeadAlone(t *testing.T) {
	t.Parallel()
	g := startGateway(t)
	g.apply(listener("web", protocolHTTP, ""))
	g.kill()
	if _, err := os.Stat(g.socket); err != nil {
		t.Fatalf("a killed process leaves its socket behind: %v", err)
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
		t.Errorf("where a file is in its place: %s", r)
	}
	if text, err := os.ReadFile(file); err != nil || string(text) != "not a socket" {
		t.Errorf("the file is now %q, %v", text, err)
	}
}
