//go:build !linux

package socket

import "syscall"

// ReadNow calls read(2) on a non-blocking descriptor. P must not be empty. The error is
// a syscall.Errno: EAGAIN if there are no bytes yet.
func ReadNow(fd int, p []byte) (int, error) { return now(syscall.Read, fd, p) }

// WriteNow calls write(2) in the same way.
func WriteNow(fd int, p []byte) (int, error) { return now(syscall.Write, fd, p) }

func now(call func(int, []byte) (int, error), fd int, p []byte) (int, error) {
	for {
		n, err := call(fd, p)
		if err != syscall.EINTR {
			return max(n, 0), err
		}
	}
}
