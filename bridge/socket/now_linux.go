package socket

import (
	"syscall"
	"unsafe"
)

// The calls here never block, so the scheduler is not told of them. To tell it
// costs as much as a small read, and more where the call takes some time, such
// as a write to a peer on the same machine: the scheduler then gives the
// processor away in the middle of it.

// ReadNow is read(2) on a descriptor that does not block. P must not be empty.
// The error is a syscall.Errno, EAGAIN if there is nothing yet.
func ReadNow(fd int, p []byte) (int, error) { return now(syscall.SYS_READ, fd, p) }

// WriteNow is write(2), likewise.
func WriteNow(fd int, p []byte) (int, error) { return now(syscall.SYS_WRITE, fd, p) }

// now reads or writes without waiting. P must not be empty.
func now(call uintptr, fd int, p []byte) (int, error) {
	for {
		n, _, errno := syscall.RawSyscall(call, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)))
		switch errno {
		case 0:
			return int(n), nil
		case syscall.EINTR:
			continue
		}
		return 0, errno
	}
}
