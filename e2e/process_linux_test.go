package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
)

// dieWithParent makes the kernel kill the process when the test binary ends
// without its cleanups, as on a timeout.
func dieWithParent(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
}

// peakMemory returns the peak resident memory of a process, in bytes.
func peakMemory(t testing.TB, pid int) int {
	t.Helper()
	return memory(t, pid, "VmHWM")
}

// memory returns one of the kernel's memory figures for a process, in bytes.
func memory(t testing.TB, pid int, figure string) int {
	t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(status)) {
		var kib int
		if _, err := fmt.Sscanf(line, figure+": %d kB", &kib); err == nil {
			return kib << 10
		}
	}
	t.Fatal("the kernel does not report the figure")
	return 0
}
