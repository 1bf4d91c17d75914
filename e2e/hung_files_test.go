// If a file on the command line cannot be read to its end, such as a FIFO
// without a writer, the start reports it and a stop still works.

package e2e

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
)

func mkfifo(t *testing.T, path string) string {
	t.Helper()
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestFileThatHangsDoesNotHoldUpTheStart(t *testing.T) {
	t.Parallel()
	a := newAuthority(t)
	dir := t.TempDir()
	fifo := mkfifo(t, filepath.Join(dir, "fifo"))
	base := append(adminTCPFlags(t, a), "--admin-client-crl", fifo, "--config", fifo, "--access-log", fifo)
	for i := 2; i < len(base); i += 2 { // every flag with a file
		flags := base[:8:8]
		if i < len(flags) {
			flags = slices.Clone(flags)
			flags[i+1] = fifo
		} else {
			flags = append(flags, base[i], fifo)
		}
		r := command(t, program(t), append([]string{"serve", "--data-dir", filepath.Join(shortDir(t), "data")}, flags...)...)
		if out := r.stdout + r.stderr; r.code == 0 || !strings.Contains(out, fifo) || !strings.Contains(out, "not a regular file") && !strings.Contains(out, "is a FIFO") {
			t.Errorf("%s: %s", base[i], r)
		}
	}
}

// The configuration file and the admin service's files are read again while the
// gateway runs.
func TestFileThatHangsLaterChangesNothing(t *testing.T) {
	t.Parallel()
	a := newAuthority(t)
	flags := adminTCPFlags(t, a)
	config := writeFile(t, filepath.Join(t.TempDir(), "config.yaml"), []byte("kind: Listener\nname: web\naddress: 127.0.0.1:0\nprotocol: PROTOCOL_HTTP\n"))
	g := startGateway(t, append(flags, "--config", config)...)
	for _, file := range []string{config, flags[3]} {
		if err := os.Remove(file); err != nil {
			t.Fatal(err)
		}
		mkfifo(t, file)
	}
	g.signal(syscall.SIGHUP)
	eventually(t, "both files are reported", func() bool {
		return g.out.contains("SIGHUP: reload failed") && g.out.contains("the TLS files of the admin service are invalid") && strings.Count(g.out.String(), "not a regular file") >= 2
	})
	if g.listener("web") == nil {
		t.Error("the listener is gone")
	}
	g.stop()
}
