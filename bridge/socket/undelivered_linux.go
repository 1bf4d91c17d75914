package socket

import "golang.org/x/sys/unix"

// Undelivered returns how many bytes were written that the peer has not
// acknowledged, or not read from a unix-domain socket; 0 if it never will, or if
// that is not known. A FIN counts as one.
func Undelivered(fd int) int {
	n, err := unix.IoctlGetInt(fd, unix.SIOCOUTQ)
	if err != nil || n == 0 {
		return 0
	}
	// The count of a connection that was reset stays as it was.
	if info, err := unix.GetsockoptTCPInfo(fd, unix.IPPROTO_TCP, unix.TCP_INFO); err == nil && info.State == tcpClose {
		return 0
	}
	return n
}
