//go:build !linux

package splice

import "syscall"

func readNow(fd int, p []byte) (int, error)  { return now(syscall.Read, fd, p) }
func writeNow(fd int, p []byte) (int, error) { return now(syscall.Write, fd, p) }

func now(call func(int, []byte) (int, error), fd int, p []byte) (int, error) {
	for {
		n, err := call(fd, p)
		if err != syscall.EINTR {
			return max(n, 0), err
		}
	}
}

// wasReset always reports false: only Linux tells.
func wasReset(int) bool { return false }

// room is not known.
func (x *side) room() int { return 0 }
