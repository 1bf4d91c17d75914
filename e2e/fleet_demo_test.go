// The fleet demo runs to its end without a failed request, and leaves no process and no file
// behind, even when it is interrupted.

package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

func TestTheFleetDemo(t *testing.T) {
	t.Parallel()
	need(t, "etcd")
	demo := filepath.Join(t.TempDir(), "fleetdemo")
	if out, err := exec.CommandContext(longContext(t), "go", "build", "-o", demo, "../deploy/fleetdemo").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, tt := range []struct {
		name, until string // the output at which the test interrupts the demo
		want        []string
	}{
		{"to its end", "Ctrl-C stops everything", []string{
			"have joined", "Revision 1 is live.", "Revision 3 is live.", " of them at another gateway because their own gateway was down; 0 got 500; 0 failed.",
			"revision 4 was rolled back: requests of the canaries fail too often", "Revision 6 is live.", "c         live    6", "Stopping.",
		}},
		{"interrupted", "have joined", nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			cmd := exec.Command(demo, "-keep", "-drawbridge", program(t))
			cmd.Env = append(os.Environ(), "TMPDIR="+dir)
			p := startCmd(t, cmd)
			for !p.done() && !p.out.contains(tt.until) {
				seen := p.out.String()
				eventually(t, "the demo continues", func() bool { return p.done() || p.out.String() != seen })
			}
			p.signal(syscall.SIGINT)
			if code := p.wait(); code != 0 {
				t.Errorf("exit code %d", code)
			}
			said := p.out.String()
			for _, want := range tt.want {
				if !strings.Contains(said, want) {
					t.Errorf("the output lacks %q", want)
				}
			}
			if strings.Contains(said, "PRIVATE KEY") || strings.Contains(said, "panic") || t.Failed() {
				t.Errorf("the output is\n%s", said)
			}
			if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
				t.Errorf("the demo left %v, %v", left, err)
			}
			processes, _ := filepath.Glob("/proc/[0-9]*/cwd")
			for _, link := range processes {
				if at, err := os.Readlink(link); err == nil && strings.HasPrefix(at, dir) {
					t.Errorf("the process %s still runs", filepath.Dir(link))
				}
			}
		})
	}
}
