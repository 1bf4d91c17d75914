package unixsocket

import (
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

func TestTheSocketAndItsDirectoryArePrivate(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a", "b")
	path := filepath.Join(dir, "admin.sock")
	lis, err := Listen(path, Options{})
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
	dead.SetUnlinkOnClose(false) // simulates a process that was killed
	dead.Close()
	lis, err := Listen(path, Options{})
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
	path := filepath.Join(t.TempDir(), "admin.sock")
	live, err := Listen(path, Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer live.Close()
	if _, err := Listen(path, Options{}); err == nil || !strings.Contains(err.Error(), "another process serves this socket") {
		t.Errorf("err = %v", err)
	}
	conn, err := net.Dial("unix", path)
	if err != nil {
		t.Fatalf("the live socket no longer answers: %v", err)
	}
	conn.Close()
}

func TestAFileThatIsNotASocketIsKept(t *testing.T) {
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
		if lis, err := Listen(path, Options{}); err == nil || !strings.Contains(err.Error(), "exists and is not a socket") {
			t.Errorf("Listen(%s) = %v, %v", path, lis, err)
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
	if _, err := Listen(path, Options{}); err == nil || !strings.Contains(err.Error(), "too long") || !strings.Contains(err.Error(), path) {
		t.Errorf("err = %v", err)
	}
	if _, err := Listen("", Options{}); err == nil {
		t.Error("an empty path is accepted")
	}
}

func TestCloseRemovesOnlyItsOwnSocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "admin.sock")
	lis, err := Listen(path, Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	other, err := Listen(path, Options{}) // acts as another process, after rm
	if err != nil {
		t.Fatal(err)
	}
	lis.Close()
	if _, err := os.Lstat(path); err != nil {
		t.Errorf("the socket of the other process is gone: %v", err)
	}
	other.Close()
	if _, err := os.Lstat(path); err == nil {
		t.Error("its own socket is still there")
	}
}

// A listener's file has the requested mode and group under any umask, and never
// has a wider mode in between.
func TestModeAndGroupRestrictConnections(t *testing.T) {
	group := strconv.Itoa(os.Getgid())
	for name, make := range map[string]func(string, Options) (*Listener, error){"Listen": Listen, "Bind": Bind} {
		path := filepath.Join(t.TempDir(), "s")
		l, err := make(path, Options{Mode: 0o660, Group: group})
		if err != nil {
			t.Fatal(err)
		}
		mode := func() os.FileMode {
			info, err := os.Lstat(path)
			if err != nil {
				t.Fatal(err)
			}
			return info.Mode().Perm()
		}
		if mode() != 0o660 {
			t.Errorf("%s: mode %o", name, mode())
		}
		if err := l.Permit(Options{Mode: 0o606}); err != nil || mode() != 0o606 {
			t.Errorf("%s: mode %o after Permit, %v", name, mode(), err)
		}
		l.Close()
		if l, err = make(path, Options{}); err != nil || mode() != 0o600 {
			t.Errorf("%s by default: mode %o, %v", name, mode(), err)
		}
		l.Close()
		if _, err := os.Lstat(path); err == nil {
			t.Errorf("%s: the file is still there", name)
		}
		if _, err := make(path, Options{Group: "no-such-group"}); err == nil || !strings.Contains(err.Error(), "does not exist") {
			t.Errorf("%s: %v", name, err)
		}
	}
}
