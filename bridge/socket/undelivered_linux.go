package socket

import "golang.org/x/sys/unix"

// Undelivered returns how many of the bytes written to a TCP connection its peer
// has not acknowledged yet; 0 if it never will. A FIN counts as one.
func Undelivered(fd int) int {
	n, err := unix.IoctlGetInt(fd, unix.SIOCOUTQ)
	if err != nil || n == 0 {
		return 0
	}
	// The count of a connection that was reset stays as it was.
	if info, err := unix.GetsockoptTCPInfo(fd, unix.IPPROTO_TCP, unix.TCP_INFO); err != nil || info.State == tcpClose {
		return 0
	}
	return n
}
