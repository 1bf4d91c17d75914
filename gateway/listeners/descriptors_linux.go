package listeners

import (
	"os"
	"syscall"
)

// descriptorLimit returns how many file descriptors the process may open. The Go runtime
// has raised the soft limit to the hard limit.
func descriptorLimit() int {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil || limit.Cur > 1<<30 {
		return 0 // unknown, or practically unlimited
	}
	return int(limit.Cur)
}

// openDescriptors returns how many file descriptors the process has open.
func openDescriptors() int {
	names, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return 64 // more than a process has at startup
	}
	return len(names)
}
