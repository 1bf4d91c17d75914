package listeners

import (
	"os"
	"syscall"
)

// descriptorLimit returns how many file descriptors the process may have. Go has
// raised what it may have to what it may ask for.
func descriptorLimit() int {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil || limit.Cur > 1<<30 {
		return 0 // unknown, or as good as none
	}
	return int(limit.Cur)
}

// openDescriptors returns how many file descriptors the process has.
func openDescriptors() int {
	names, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return 64 // more than it can be
	}
	return len(names)
}
