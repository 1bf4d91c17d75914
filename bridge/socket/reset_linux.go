package socket

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// tcpClose is TCP_CLOSE of the kernel's enum, where a reset leaves a socket.
const tcpClose = 7

// WasReset reports whether a TCP connection is over although s has not ended
// its own stream: then the peer reset it. The kernel tells of a reset only
// once, so if a Write learnt of it, Fill sees io.EOF as after a clean end, and
// this is the way to tell them apart. Once CloseWrite was called the answer
// means nothing.
func (s *Socket) WasReset() bool {
	c, ok := s.Conn.(syscall.Conn)
	if !ok {
		return false
	}
	raw, err := c.SyscallConn()
	if err != nil {
		return false
	}
	reset := false
	_ = raw.Control(func(fd uintptr) {
		info, err := unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO)
		reset = err == nil && info.State == tcpClose
	})
	return reset
}
