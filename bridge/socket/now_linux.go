package socket

import (
	"syscall"
	"unsafe"
)

// These calls never block, so they bypass the scheduler. Notifying it costs as much as
// a small read. It costs more if the call takes some time, such as a write to a peer on
// the same machine, because the scheduler then passes the processor to another thread
// in the middle of the call.

// ReadNow calls read(2) on a non-blocking descriptor. P must not be empty. The error is
// a syscall.Errno: EAGAIN if there are no bytes yet.
func ReadNow(fd int, p []byte) (int, error) { return now(syscall.SYS_READ, fd, p) }

// WriteNow calls write(2) in the same way.
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
