package admin

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

func TestTheSocketIsOursAloneAndItsDirectoryToo(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a", "b")
	path := filepath.Join(dir, "admin.sock")
	lis, err := ListenUnix(path)
	if err != nil {
		t.Fatal(err)
	}
	for p, want := range map[string]os.FileMode{path: 0o600 | os.ModeSocket, dir: 0o700 | os.ModeDir, filepath.Dir(dir): 0o700 | os.ModeDir} {
		info, err := os.Lstat(p)
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode() != want {
			t.Errorf("%s has mode %v, want %v", p, info.Mode(), want)
		}
	}
	if lis.Addr().String() != path {
		t.Errorf("Addr() = %s, want %s", lis.Addr(), path)
	}
	lis.Close()
	left, err := os.ReadDir(dir)
	if err != nil || len(left) != 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

func TestAStaleSocketIsTakenOver(t *testing.T) {
	path := filepath.Join(t.TempDir(), "admin.sock")
	dead, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	dead.SetUnlinkOnClose(false) // as when its process is killed
	dead.Close()
	lis, err := ListenUnix(path)
	if err != nil {
		t.Fatal(err)
	}
	defer lis.Close()
	conn, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	conn.Close()
	left, _ := os.ReadDir(filepath.Dir(path))
	if len(left) != 1 {
		t.Errorf("beside the socket: %v", left)
	}
}

func TestALiveSocketIsNotTakenOver(t *testing.T) {
	r := start(t)
	_, err := ListenUnix(r.socket)
	if err == nil || !strings.Contains(err.Error(), "another process is serving there") {
		t.Errorf("err = %v", err)
	}
	if _, err := r.status.GetStatus(t.Context(), &adminv1.GetStatusRequest{}); err != nil {
		t.Errorf("the live one does not answer any more: %v", err)
	}
}

func TestWhatIsNoSocketIsLeftAlone(t *testing.T) {
	dir := t.TempDir()
	file, link, sub := filepath.Join(dir, "file"), filepath.Join(dir, "link"), filepath.Join(dir, "sub")
	if err := os.WriteFile(file, []byte("precious"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(filepath.Join(dir, "nowhere"), link); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(sub, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{file, link, sub} {
		if lis, err := ListenUnix(path); err == nil || !strings.Contains(err.Error(), "something else than a socket") {
			t.Errorf("ListenUnix(%s) = %v, %v", path, lis, err)
		}
	}
	if text, err := os.ReadFile(file); err != nil || string(text) != "precious" {
		t.Errorf("the file is now %q, %v", text, err)
	}
	if left, _ := os.ReadDir(dir); len(left) != 3 {
		t.Errorf("left behind: %v", left)
	}
}

func TestASocketPathThatIsTooLongIsExplained(t *testing.T) {
	path := filepath.Join(t.TempDir(), strings.Repeat("x", 120))
	if _, err := ListenUnix(path); err == nil || !strings.Contains(err.Error(), "too long") || !strings.Contains(err.Error(), path) {
		t.Errorf("err = %v", err)
	}
	if _, err := ListenUnix(""); err == nil {
		t.Error("an empty path is taken")
	}
}

func TestCloseRemovesOnlyItsOwnSocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "admin.sock")
	lis, err := ListenUnix(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	other, err := ListenUnix(path) // another process, after somebody's rm
	if err != nil {
		t.Fatal(err)
	}
	lis.Close()
	if _, err := os.Lstat(path); err != nil {
		t.Errorf("the other's socket is gone: %v", err)
	}
	other.Close()
	if _, err := os.Lstat(path); err == nil {
		t.Error("its own socket is still there")
	}
}

func TestShutdownRemovesTheSocket(t *testing.T) {
	r := start(t)
	if err := r.Shutdown(context.Background()); err != nil {
		t.Fatal(err)
	}
	// Shutdown may have been first: Serve then closes the socket as it comes.
	err := <-r.served
	r.served <- err
	if _, err := os.Lstat(r.socket); err == nil {
		t.Error("the socket is still there")
	}
}
