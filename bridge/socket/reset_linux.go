package socket

// tcpClose is TCP_CLOSE, the kernel's state of a socket after a reset.
const tcpClose = 7

// WasReset reports whether a TCP connection has ended although our side did not end its
// stream: then the peer reset it. The kernel reports a reset only once. If a write
// consumed that report, a read sees what looks like a clean end, and WasReset
// distinguishes the two. After our side has ended its stream the result has no meaning.
func WasReset(fd int) bool {
	info, ok := tcpInfo(fd)
	return ok && info.State == tcpClose
}
