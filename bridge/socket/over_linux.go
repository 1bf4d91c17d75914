package socket

import "golang.org/x/sys/unix"

// isOver reports whether a TCP connection is over, in both directions.
func isOver(fd int) bool {
	const closed = 7 // TCP_CLOSE
	info, err := unix.GetsockoptTCPInfo(fd, unix.IPPROTO_TCP, unix.TCP_INFO)
	return err == nil && info.State == closed
}
