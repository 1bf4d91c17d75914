package bolt

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// Kubernetes mounts a volume that belongs to root and that its group or all users
// may write to. The gateway refuses to store keys in it, and suggests a directory
// in the volume. It creates that directory so that no other user can enter it.
func TestAMountedVolumeCanHoldTheDataDirectory(t *testing.T) {
	if dir := os.Getenv("BOLT_TEST_MOUNTED"); dir != "" {
		s, err := Open(dir, Options{})
		if err != nil {
			fmt.Println(err)
			return
		}
		fmt.Println("opened")
		s.Close()
		return
	}
	if os.Geteuid() != 0 {
		t.Skip("only root can act as other users")
	}
	const user, group, other = 10001, 20001, 10002
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	top, err := os.MkdirTemp("", "mounted") // other users cannot enter t.TempDir's parents
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(top) })
	if err := os.Chmod(top, 0o755); err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(top, "bolt.test")
	binary, err := os.ReadFile(self)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(program, binary, 0o755); err != nil {
		t.Fatal(err)
	}
	as := func(uid uint32, name string, args ...string) (*exec.Cmd, func() string) {
		cmd := exec.Command(name, args...)
		cmd.Dir = top
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid, Groups: []uint32{group}}}
		return cmd, func() string { out, _ := cmd.CombinedOutput(); return string(out) }
	}
	open := func(dir string) string {
		cmd, run := as(user, program, "-test.run=^TestAMountedVolumeCanHoldTheDataDirectory$")
		cmd.Env = append(os.Environ(), "BOLT_TEST_MOUNTED="+dir)
		return run()
	}
	for name, v := range map[string]struct {
		group int
		mode  os.FileMode
	}{
		"a volume with fsGroup": {group, 0o770 | os.ModeSetgid}, "an emptyDir": {0, 0o777}, "a local disk": {group, 0o775 | os.ModeSetgid},
	} {
		t.Run(name, func(t *testing.T) {
			volume, err := os.MkdirTemp(top, "v")
			if err != nil {
				t.Fatal(err)
			}
			if err := os.Chown(volume, 0, v.group); err != nil {
				t.Fatal(err)
			}
			if err := os.Chmod(volume, v.mode); err != nil {
				t.Fatal(err)
			}
			own := filepath.Join(volume, "drawbridge")
			if out := open(volume); !strings.Contains(out, "--data-dir "+own) {
				t.Errorf("the volume itself: %s", out)
			}
			for range 2 { // the directory is created, and then found again
				if out := open(own); !strings.Contains(out, "opened") {
					t.Errorf("a directory in it: %s", out)
				}
			}
			_, read := as(other, "cat", filepath.Join(own, fileName))
			if out := read(); !strings.Contains(out, "Permission denied") {
				t.Errorf("another user of the group reads the state: %.100q", out)
			}
		})
	}
}
