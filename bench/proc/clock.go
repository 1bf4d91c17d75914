package proc

import (
	"fmt"
	"syscall"
	"time"
	"unsafe"
)

// Clock returns the CPU time of the root process without its descendants. It reads the
// clock of the process, which is more precise than the ticks of CPU.
func (t Tree) Clock() (time.Duration, error) {
	// The ID of the clock that clock_getcpuclockid(3) returns.
	const scheduler = 2
	var spent syscall.Timespec
	if _, _, errno := syscall.Syscall(syscall.SYS_CLOCK_GETTIME, ^uintptr(t.PID)<<3|scheduler, uintptr(unsafe.Pointer(&spent)), 0); errno != 0 {
		return 0, fmt.Errorf("process %d: read its CPU clock: %w", t.PID, errno)
	}
	return time.Duration(spent.Nano()), nil
}
