package socket

import "golang.org/x/sys/unix"

// unacknowledged returns how many bytes were written that the peer has not
// acknowledged; 0 if that is not known.
func unacknowledged(fd int) int {
	n, err := unix.IoctlGetInt(fd, unix.SIOCOUTQ)
	if err != nil {
		return 0
	}
	return n
}
