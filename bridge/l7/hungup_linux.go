package l7

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// hungUp reports whether the client has closed its connection, or its half of
// it. It does not wait, and takes nothing of what arrived. A client that ended
// its stream after more requests, in plaintext, has not hung up: they are still
// to be answered.
func hungUp(c *conn) (gone bool) {
	raw, err := c.SyscallConn()
	if err != nil {
		return false
	}
	const broken = unix.POLLHUP | unix.POLLERR | unix.POLLNVAL
	err = raw.Control(func(fd uintptr) {
		poll := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLRDHUP}}
		if n, err := unix.Poll(poll, 0); n <= 0 || err != nil {
			return
		}
		if gone = poll[0].Revents&broken != 0; gone || poll[0].Revents&unix.POLLRDHUP == 0 {
			return
		}
		var next [1]byte
		n, _, err := syscall.Recvfrom(int(fd), next[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
		const alert = 21 // the record type of TLS whose last is close_notify
		gone = n <= 0 || err != nil || next[0] == alert
	})
	return gone || err != nil
}
