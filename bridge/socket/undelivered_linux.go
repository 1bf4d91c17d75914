package socket

import "golang.org/x/sys/unix"

// Undelivered returns how many written bytes a TCP peer has not acknowledged, or a
// unix-domain peer has not read. It returns 0 if the connection has ended, or if the
// number is unknown. A FIN counts as one byte.
func Undelivered(fd int) int {
	n, err := unix.IoctlGetInt(fd, unix.SIOCOUTQ)
	if err != nil || n == 0 {
		return 0
	}
	// After a reset the kernel no longer updates the count.
	if info, ok := tcpInfo(fd); ok && info.State == tcpClose {
		return 0
	}
	return n
}
