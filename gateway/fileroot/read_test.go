package fileroot

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// write creates a file and its parent directories.
func write(t testing.TB, path, content string) string {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

func link(t *testing.T, target, path string) string {
	t.Helper()
	if err := os.Symlink(target, path); err != nil {
		t.Fatal(err)
	}
	return path
}

// place returns a directory with a root in it, and with files outside the root.
func place(t *testing.T) (dir, root string) {
	t.Helper()
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	root = filepath.Join(dir, "root")
	write(t, filepath.Join(root, "in.pem"), "inside")
	write(t, filepath.Join(root, "sub", "deep.pem"), "deep")
	write(t, filepath.Join(dir, "root-beside", "out.pem"), "outside")
	return dir, root
}

func TestPathBelowARootIsRead(t *testing.T) {
	dir, root := place(t)
	other := filepath.Join(dir, "other")
	write(t, filepath.Join(other, "o.pem"), "other")
	link(t, "../other/o.pem", filepath.Join(root, "to-other"))
	link(t, filepath.Join(root, "in.pem"), filepath.Join(dir, "link-from-outside"))
	link(t, root, filepath.Join(dir, "linked-root"))
	link(t, "sub", filepath.Join(root, "d"))
	link(t, "/proc/self/root"+root, filepath.Join(dir, "magic"))
	for _, tt := range []struct {
		roots Roots
		path  string
		want  string // empty: the path is refused
	}{
		{Roots{root}, root + "/in.pem", "inside"},
		{Roots{root}, root + "//sub/./../in.pem", "inside"},
		{Roots{root + "/"}, root + "/sub/deep.pem", "deep"},
		{Roots{root}, root + "/d/deep.pem", "deep"},
		{Roots{"/"}, root + "/in.pem", "inside"},
		{Roots{root}, dir + "/link-from-outside", "inside"},
		{Roots{root}, dir + "/linked-root/in.pem", "inside"},
		{Roots{dir + "/linked-root"}, dir + "/linked-root/in.pem", "inside"},
		{Roots{dir + "/linked-root"}, root + "/in.pem", "inside"},
		{Roots{root, other}, root + "/to-other", "other"},
		{Roots{root + "/sub", root}, root + "/in.pem", "inside"},

		{Roots{root}, root + "/to-other", ""},
		{Roots{root}, dir + "/root-beside/out.pem", ""},
		{Roots{root}, root + "/../root-beside/out.pem", ""},
		{Roots{root + "/sub"}, root + "/in.pem", ""},
		{Roots{filepath.Join(dir, "missing")}, root + "/in.pem", ""},
		{nil, root + "/in.pem", ""},
		{Roots{root}, "root/in.pem", ""},
		{Roots{root}, "", ""},
		{Roots{root}, "/", ""},
	} {
		f := tt.roots.ReadAll(tt.path)[0]
		if tt.want == "" && (f.Err != ErrOutside || f.Content != nil) {
			t.Errorf("%s of %v: %q, %v", tt.path, tt.roots, f.Content, f.Err)
		}
		if tt.want != "" && (f.Err != nil || string(f.Content) != tt.want) {
			t.Errorf("%s of %v: %q, %v", tt.path, tt.roots, f.Content, f.Err)
		}
	}
}

// A client that can set paths must not learn which files exist.
func TestAnErrorOutsideTheRootsRevealsNothing(t *testing.T) {
	dir, root := place(t)
	secret := filepath.Join(dir, "secret")
	write(t, filepath.Join(secret, "there"), "x")
	if err := syscall.Mkfifo(filepath.Join(secret, "fifo"), 0o600); err != nil {
		t.Fatal(err)
	}
	link(t, "loop", filepath.Join(secret, "loop"))
	link(t, "nowhere", filepath.Join(secret, "dangling"))
	for i, name := range []string{"there", "missing", "there/below-a-file", "fifo", "loop", "dangling", "missing/x", ".", strings.Repeat("n", 300), "nul\x00"} {
		direct := filepath.Join(secret, name)
		paths := []string{direct}
		if !strings.Contains(name, "\x00") {
			paths = append(paths, link(t, direct, filepath.Join(root, "link"+string(rune('a'+i)))))
		}
		for _, p := range paths {
			if f := (Roots{root}).ReadAll(p)[0]; f.Err != ErrOutside {
				t.Errorf("%q: %v", p, f.Err)
			}
			for _, step := range (Roots{root}).Survey().Steps(p) {
				if strings.HasPrefix(step, secret) {
					t.Errorf("%q is traced to %s", p, step)
				}
			}
		}
	}
}

func TestErrorsBelowARootNameTheReason(t *testing.T) {
	_, root := place(t)
	if err := syscall.Mkfifo(filepath.Join(root, "fifo"), 0o600); err != nil {
		t.Fatal(err)
	}
	link(t, "loop", filepath.Join(root, "loop"))
	huge := write(t, filepath.Join(root, "huge"), "")
	if err := os.Truncate(huge, MaxBytes+1); err != nil {
		t.Fatal(err)
	}
	most := write(t, filepath.Join(root, "most"), "")
	if err := os.Truncate(most, MaxBytes); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"missing": "no such file", "missing/x": "no such file", "in.pem/x": "not a directory", "sub": "not a regular file",
		"fifo": "not a regular file", "loop": "too many levels", "huge": "larger than 67108864 bytes",
	} {
		f := Roots{root}.ReadAll(filepath.Join(root, name))[0]
		if f.Err == nil || !strings.Contains(f.Err.Error(), want) || strings.Contains(f.Err.Error(), root) {
			t.Errorf("%s: %v", name, f.Err)
		}
	}
	if f := (Roots{root}).ReadAll(most)[0]; f.Err != nil || len(f.Content) != MaxBytes {
		t.Errorf("a file of the most bytes: %d, %v", len(f.Content), f.Err)
	}
	gone := filepath.Join(root, "not-yet")
	if f := (Roots{gone}).ReadAll(gone + "/c.pem")[0]; !errors.Is(f.Err, syscall.ENOENT) {
		t.Errorf("a root that is not there yet: %v", f.Err)
	}
}

func TestUnreadableFileIsReported(t *testing.T) {
	_, root := place(t)
	path := filepath.Join(root, "in.pem")
	if err := os.Chmod(path, 0); err != nil {
		t.Fatal(err)
	}
	unprivileged(t, func() {
		if f := (Roots{root}).ReadAll(path)[0]; !errors.Is(f.Err, syscall.EACCES) {
			t.Errorf("%q, %v", f.Content, f.Err)
		}
	})
}

// ReadAll never returns one file of a pair from before its replacement, and one
// from after.
func TestFilesAreReadConsistently(t *testing.T) {
	_, root := place(t)
	replace := func(i int) {
		v := fmt.Sprint(i)
		write(t, filepath.Join(root, v, "chain"), strings.Repeat(v, 2_000))
		write(t, filepath.Join(root, v, "key"), strings.Repeat(v, 2_000))
		next := link(t, v, filepath.Join(root, "current.tmp"))
		if err := os.Rename(next, filepath.Join(root, "current")); err != nil {
			t.Error(err)
		}
		os.RemoveAll(filepath.Join(root, fmt.Sprint(i-2)))
	}
	replace(0)
	current := filepath.Join(root, "current")
	stop := make(chan struct{})
	var replacing sync.WaitGroup
	replacing.Go(func() {
		for i := 1; ; i++ {
			select {
			case <-stop:
				return
			default:
				replace(i)
			}
		}
	})
	read := 0
	for tries := 0; tries < 500 && read < 50; tries++ {
		pair := Roots{root}.ReadAll(filepath.Join(current, "chain"), filepath.Join(current, "key"))
		if pair[0].Err != nil || pair[1].Err != nil { // the pair is replaced faster than it is read
			continue
		}
		if read++; !bytes.Equal(pair[0].Content, pair[1].Content) {
			t.Error("a chain was read with the key of another")
		}
	}
	close(stop)
	replacing.Wait()
	if pair := (Roots{root}).ReadAll(filepath.Join(current, "chain"), filepath.Join(current, "key")); pair[0].Err != nil || !bytes.Equal(pair[0].Content, pair[1].Content) {
		t.Errorf("at rest: %v, %v", pair[0].Err, pair[1].Err)
	}
}

func TestATraceNamesEveryStepOfAKubernetesVolume(t *testing.T) {
	dir, root := place(t)
	write(t, filepath.Join(root, "..2026_1", "tls.crt"), "x")
	link(t, "..2026_1", filepath.Join(root, "..data"))
	link(t, "..data/tls.crt", filepath.Join(root, "tls.crt"))
	entry := link(t, root, filepath.Join(dir, "entry"))
	want := []string{entry, root, root + "/tls.crt", root + "/..data", root + "/..2026_1", root + "/..2026_1/tls.crt"}
	if got := (Roots{root}).Survey().Steps(entry + "/tls.crt"); strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	// The Survey watches for a missing file in the directory where it would be.
	if got := (Roots{root}).Survey().Steps(root + "/new/c.pem"); strings.Join(got, " ") != root+" "+root+"/new" {
		t.Errorf("%v", got)
	}
}

// unprivileged runs f without the right to bypass file permissions.
func unprivileged(t *testing.T, f func()) {
	if os.Geteuid() != 0 {
		f()
		return
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if _, _, errno := syscall.RawSyscall(syscall.SYS_SETFSUID, 65534, 0, 0); errno != 0 {
		t.Fatal(errno)
	}
	defer syscall.RawSyscall(syscall.SYS_SETFSUID, 0, 0, 0)
	f()
}
