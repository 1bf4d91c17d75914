package socket

import "golang.org/x/sys/unix"

// tcpClose is TCP_CLOSE of the kernel's enum, where a reset leaves a socket.
const tcpClose = 7

// WasReset reports whether a TCP connection is over although its own stream has
// not been ended: then the peer reset it. The kernel tells of a reset only once,
// so if a write learnt of it, a read sees what looks like a clean end, and this
// is the way to tell them apart. Once the stream was ended the answer means
// nothing.
func WasReset(fd int) bool {
	info, err := unix.GetsockoptTCPInfo(fd, unix.IPPROTO_TCP, unix.TCP_INFO)
	return err == nil && info.State == tcpClose
}
