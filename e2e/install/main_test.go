// Package install tests the release: it is reproducible, its packages can be installed,
// upgraded and removed as users expect, and its image runs in Kubernetes.
// `make install-test` runs the tests.
package install

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"
)

// testTimeout bounds every wait. Only a failing test waits that long.
const testTimeout = 90 * time.Second

func eventually(t testing.TB, condition string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(testTimeout)
	for pause := time.Millisecond; !ok(); pause = min(2*pause, 100*time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not after %v: %s", testTimeout, condition)
		}
		time.Sleep(pause)
	}
}

// need returns the path of an installed program. Without it the test is skipped or, with
// CI set, fails.
func need(t testing.TB, program string) string {
	t.Helper()
	path, err := exec.LookPath(program)
	if err != nil {
		missing(t, program+" is not installed")
	}
	return path
}

func missing(t testing.TB, reason string) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatal(reason)
	}
	t.Skip(reason)
}

// made returns the path of a file that `make install-test` makes. An environment
// variable holds the path.
func made(t testing.TB, variable string) string {
	t.Helper()
	path := os.Getenv(variable)
	if path == "" {
		missing(t, variable+" is not set: use make install-test")
	}
	if _, err := os.Stat(path); err != nil {
		missing(t, err.Error())
	}
	return path
}

// released returns the only file of the release that matches pattern.
func released(t testing.TB, pattern string) string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(made(t, "RELEASE"), pattern))
	if err != nil || len(files) != 1 {
		t.Fatalf("%s: %v, %v", pattern, files, err)
	}
	return files[0]
}

// run runs a command, which must succeed, and returns what it prints.
func run(t testing.TB, name string, args ...string) string {
	t.Helper()
	return runCmd(t, exec.Command(name, args...))
}

func runCmd(t testing.TB, cmd *exec.Cmd) string {
	t.Helper()
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", strings.Join(cmd.Args, " "), err, out)
	}
	return string(out)
}

// A root is the root of a small Debian, in a directory.
type root struct {
	t   testing.TB
	dir string
}

// newRoot returns a fresh root.
func newRoot(t testing.TB) *root {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("only root can install packages")
	}
	archive := made(t, "PACKAGE_ROOT")
	r := &root{t, t.TempDir()}
	run(t, "tar", "--extract", "--numeric-owner", "--same-permissions", "--file", archive, "--directory", r.dir)
	if err := os.Chmod(r.dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return r
}

func (r *root) path(path string) string { return filepath.Join(r.dir, path) }

// cmd returns a command that runs in the root.
func (r *root) cmd(args ...string) *exec.Cmd {
	return r.mounted(append([]string{"chroot", r.dir}, args...)...)
}

// mounted returns a command of this machine for which /proc is mounted in the root. Only
// this command sees the mount, which ends with it.
func (r *root) mounted(args ...string) *exec.Cmd {
	const script = `mount -t proc proc "$1/proc" && shift && exec "$@"`
	cmd := exec.Command("unshare", append([]string{"--mount", "sh", "-c", script, "sh", r.dir}, args...)...)
	cmd.Env = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "DEBIAN_FRONTEND=noninteractive", "LC_ALL=C", "HOME=/root"}
	// The kernel kills the command if the test ends without its cleanups.
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return cmd
}

// run runs a command in the root, which must succeed, and returns what it prints.
func (r *root) run(args ...string) string {
	r.t.Helper()
	return runCmd(r.t, r.cmd(args...))
}

func (r *root) read(path string) string {
	r.t.Helper()
	data, err := os.ReadFile(r.path(path))
	if err != nil {
		r.t.Fatal(err)
	}
	return string(data)
}

func (r *root) write(path, content string, mode fs.FileMode) {
	r.t.Helper()
	for _, err := range []error{
		os.MkdirAll(filepath.Dir(r.path(path)), 0o755), os.WriteFile(r.path(path), []byte(content), mode), os.Chmod(r.path(path), mode),
	} {
		if err != nil {
			r.t.Fatal(err)
		}
	}
}

func (r *root) exists(path string) bool {
	_, err := os.Lstat(r.path(path))
	return !errors.Is(err, fs.ErrNotExist)
}

// tree returns every file of the root with its type, mode and owner, except files
// below the given paths.
func (r *root) tree(without ...string) map[string]string {
	r.t.Helper()
	files := make(map[string]string)
	err := filepath.WalkDir(r.dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		path = "/" + strings.TrimPrefix(strings.TrimPrefix(path, r.dir), "/")
		for _, w := range without {
			if strings.HasPrefix(path, w) {
				return nil
			}
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		owner := info.Sys().(*syscall.Stat_t)
		files[path] = fmt.Sprintf("%v %d:%d", info.Mode(), owner.Uid, owner.Gid)
		return nil
	})
	if err != nil {
		r.t.Fatal(err)
	}
	return files
}

// differences returns the paths at which two trees differ.
func differences(before, after map[string]string) (paths []string) {
	for path, what := range after {
		if before[path] != what {
			paths = append(paths, fmt.Sprintf("%s: %q, was %q", path, what, before[path]))
		}
	}
	for path, what := range before {
		if _, ok := after[path]; !ok {
			paths = append(paths, fmt.Sprintf("%s: gone, was %q", path, what))
		}
	}
	return paths
}

// owned fails the test unless a file has this mode, owner and group (by name).
func (r *root) owned(path, want string) {
	r.t.Helper()
	if got := strings.TrimSpace(r.run("stat", "--format=%A %U:%G", path)); got != want {
		r.t.Errorf("%s is %s, want %s", path, got, want)
	}
}

// architecture returns the architecture of this machine, or skips the test if
// it has no packages.
func architecture(t testing.TB) (deb, rpm string) {
	switch runtime.GOARCH {
	case "amd64":
		return "amd64", "x86_64"
	case "arm64":
		return "arm64", "aarch64"
	}
	t.Skip("there are no packages for " + runtime.GOARCH)
	return "", ""
}
