package socket

import (
	"syscall"
	"unsafe"
)

// The calls here never block, so the scheduler is not told of them. To tell it
// costs as much as a small read, and more where the call takes some time, such
// as a write to a peer on the same machine: the scheduler then gives the
// processor away in the middle of it.

func readNow(fd uintptr, p []byte) (int, error)  { return now(syscall.SYS_READ, fd, p) }
func writeNow(fd uintptr, p []byte) (int, error) { return now(syscall.SYS_WRITE, fd, p) }

// now reads or writes without waiting. P must not be empty.
func now(call, fd uintptr, p []byte) (int, error) {
	for {
		n, _, errno := syscall.RawSyscall(call, fd, uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)))
		switch errno {
		case 0:
			return int(n), nil
		case syscall.EINTR:
			continue
		}
		return 0, errno
	}
}
