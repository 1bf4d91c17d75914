package socket

// tcpClose is TCP_CLOSE, the kernel's state of a socket after a reset.
const tcpClose = 7

// WasReset reports whether the peer has reset a TCP connection: whether the connection
// has ended although this side did not end its stream. The kernel reports a reset only
// once. If a write consumed that report, a read reports a clean end, and WasReset
// distinguishes the two. After this side has ended its stream, the result has no
// meaning.
func WasReset(fd int) bool {
	info, ok := tcpInfo(fd)
	return ok && info.State == tcpClose
}
