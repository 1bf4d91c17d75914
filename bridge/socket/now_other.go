//go:build !linux

package socket

import "syscall"

// ReadNow is read(2) on a descriptor that does not block. P must not be empty.
// The error is a syscall.Errno, EAGAIN if there is nothing yet.
func ReadNow(fd int, p []byte) (int, error) { return now(syscall.Read, fd, p) }

// WriteNow is write(2), likewise.
func WriteNow(fd int, p []byte) (int, error) { return now(syscall.Write, fd, p) }

func now(call func(int, []byte) (int, error), fd int, p []byte) (int, error) {
	for {
		n, err := call(fd, p)
		if err != syscall.EINTR {
			return max(n, 0), err
		}
	}
}
