package confine

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/hashicorp/go-hclog"
	ll "github.com/landlock-lsm/go-landlock/landlock/syscall"
)

// rerun runs the test in a process of its own, because restrictions cannot be lifted.
// There it returns true.
func rerun(t *testing.T, set func(*exec.Cmd)) bool {
	t.Helper()
	const variable = "CONFINE_TEST_DIR"
	if os.Getenv(variable) != "" {
		return true
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self, "-test.run=^"+t.Name()+"$", "-test.v")
	cmd.Env = append(os.Environ(), variable+"="+t.TempDir())
	if set != nil {
		set(cmd)
	}
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "--- PASS") && !strings.Contains(string(out), "--- SKIP") {
		t.Errorf("%v\n%s", err, out)
	}
	return false
}

func TestAConfinedProcessUsesOnlyItsFiles(t *testing.T) {
	if version, err := ll.LandlockGetABIVersion(); err != nil || version < minVersion {
		t.Skip("this kernel cannot enforce Landlock:", version, err)
	}
	if !rerun(t, nil) {
		return
	}
	top := os.Getenv("CONFINE_TEST_DIR")
	at := func(parts ...string) string { return filepath.Join(append([]string{top}, parts...)...) }
	for _, dir := range []string{"data", "data/sub", "root", "root/sub", "logs", "bin", "outside"} {
		if err := os.Mkdir(at(dir), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(at(dir, "file"), []byte("#!/bin/sh\n"), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	f := &Flags{landlock: true, noNewPrivileges: true}
	paths := Paths{DataDir: at("data"), FileRoots: []string{at("root")}, Logs: []string{at("logs", "access.log")}, Program: at("bin", "program")}
	c, err := f.Apply(t.Context(), func() Paths { return paths }, 0, os.LookupEnv, hclog.NewNullLogger())
	if err != nil || !c.GetLandlock() || !c.GetNoNewPrivileges() {
		t.Fatalf("%v, %v", c, err)
	}

	readFile := func(path string) error { _, err := os.ReadFile(path); return err }
	writeFile := func(path string) error {
		f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE, 0o600)
		if err == nil {
			err = f.Close()
		}
		return err
	}
	list := func(path string) error { _, err := os.ReadDir(path); return err }
	bind := func(path string) error {
		l, err := net.Listen("unix", path)
		if err == nil {
			err = l.Close() // this removes the file
		}
		return err
	}
	run := func(path string) error { return exec.Command(path).Run() }
	tries := func() (faults []string) {
		for _, c := range []struct {
			name    string
			err     error
			allowed bool
		}{
			{"read a file root", readFile(at("root", "sub", "file")), true},
			{"write to a file root", writeFile(at("root", "file")), false},
			{"create in a file root", writeFile(at("root", "new")), false},
			{"read the data directory", readFile(at("data", "file")), true},
			{"write to the data directory", writeFile(at("data", "new")), true},
			{"move a file within the data directory", errors.Join(os.Rename(at("data", "file"), at("data", "sub", "file")), os.Rename(at("data", "sub", "file"), at("data", "file"))), true},
			{"run a program in the data directory", run(at("data", "file")), false},
			{"create a log", writeFile(at("logs", "access.log")), true},
			{"read a log", readFile(at("logs", "file")), false},
			{"read a file outside", readFile(at("outside", "file")), false},
			{"list a directory outside", list(at("outside")), false},
			{"write to a file outside", writeFile(at("outside", "file")), false},
			{"truncate a file outside", os.Truncate(at("outside", "file"), 0), false},
			{"make a directory outside", os.Mkdir(at("outside", "new"), 0o700), false},
			{"link to a file outside", os.Link(at("outside", "file"), at("data", "link")), false},
			{"run a program outside", run("/bin/true"), false},
			{"bind a unix socket outside", bind(at("outside", "socket")), true},
			{"read /etc/hosts", readFile("/etc/hosts"), true},
			{"write to /etc", writeFile("/etc/drawbridge-test"), false},
			{"open the null device", writeFile(os.DevNull), true},
			{"list the descriptors", list("/proc/self/fd"), true},
		} {
			denied := errors.Is(c.err, fs.ErrPermission) || errors.Is(c.err, syscall.EXDEV)
			if c.allowed && c.err != nil || !c.allowed && !denied {
				faults = append(faults, fmt.Sprintf("%s: %v, want allowed %v", c.name, c.err, c.allowed))
			}
		}
		return faults
	}
	for _, fault := range tries() {
		t.Error(fault)
	}
	// Threads that exist already are confined too.
	var threads sync.WaitGroup
	for range 8 {
		threads.Go(func() {
			runtime.LockOSThread()
			if err := readFile(at("outside", "file")); !errors.Is(err, fs.ErrPermission) {
				t.Errorf("another thread: %v", err)
			}
		})
	}
	threads.Wait()
}

// effectiveUser is the name of the test that prints the user under which it runs.
const effectiveUser = "TestPrintTheEffectiveUser"

func TestPrintTheEffectiveUser(t *testing.T) {
	if os.Getenv("CONFINE_TEST_USER") == "" {
		t.Skip("this is run by another test")
	}
	fmt.Printf("effective user %d\n", os.Geteuid())
}

func TestASetUserIDProgramGainsNothing(t *testing.T) {
	if os.Geteuid() != 0 && os.Getenv("CONFINE_TEST_DIR") == "" {
		t.Skip("only root can make a program with the rights of root")
	}
	const program = "CONFINE_TEST_PROGRAM"
	asRoot := func() bool {
		cmd := exec.Command(os.Getenv(program), "-test.run=^"+effectiveUser+"$")
		cmd.Env = append(os.Environ(), "CONFINE_TEST_USER=yes")
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		return strings.Contains(string(out), "effective user 0")
	}
	inChild := rerun(t, func(cmd *exec.Cmd) {
		self, err := os.Executable()
		if err != nil {
			t.Fatal(err)
		}
		text, err := os.ReadFile(self)
		if err != nil {
			t.Fatal(err)
		}
		dir, err := os.MkdirTemp("", "confine") // other users cannot enter t.TempDir's parents
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { os.RemoveAll(dir) })
		copied, plain := filepath.Join(dir, "setuid"), filepath.Join(dir, "plain")
		if err := errors.Join(os.Chmod(dir, 0o755), os.WriteFile(copied, text, 0o755), os.WriteFile(plain, text, 0o755), os.Chmod(copied, 0o755|os.ModeSetuid)); err != nil {
			t.Fatal(err)
		}
		cmd.Path, cmd.Dir = plain, dir
		cmd.Env = append(cmd.Env, program+"="+copied)
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	})
	if !inChild {
		return
	}
	if os.Geteuid() == 0 {
		t.Fatal("this process is root")
	}
	if !asRoot() {
		t.Skip("the file system of the temporary directory ignores set-user-ID programs")
	}
	if c, err := (&Flags{noNewPrivileges: true}).Apply(t.Context(), func() Paths { return Paths{} }, 0, os.LookupEnv, hclog.NewNullLogger()); err != nil || !c.GetNoNewPrivileges() {
		t.Fatalf("%v, %v", c, err)
	}
	if asRoot() {
		t.Error("a set-user-ID program ran as root")
	}
}
