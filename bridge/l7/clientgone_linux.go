package l7

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// clientGone reports whether the client has closed or half-closed its connection.
// It neither waits nor consumes bytes. A client that sent further requests before
// it ended its stream has not left, because the gateway still has to answer them.
func clientGone(c *conn) (gone bool) {
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
		var next [lastRecord + 1]byte
		n, _, err := syscall.Recvfrom(int(fd), next[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
		gone = n <= 0 || err != nil || c.facts.TLS && isLast(next[:n])
	})
	return gone || err != nil
}

// lastRecord is the length of a close_notify in TLS 1.3: a record's header, the
// alert, its type and the tag.
const lastRecord = 5 + 2 + 1 + 16

// isLast reports whether the last bytes of a TLS stream are its close_notify.
// TLS 1.3 hides the real type of a record. But a last record of two bytes cannot
// be a request.
func isLast(p []byte) bool {
	const alert, data = 21, 23 // types of records (RFC 8446, section 5.1)
	return p[0] == alert || len(p) == lastRecord && p[0] == data && int(p[3])<<8+int(p[4]) == lastRecord-5
}
