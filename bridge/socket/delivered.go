package socket

import "syscall"

// Delivered reports how the peer receives the written bytes. Progress is a number
// that changes when the peer's kernel has acknowledged more; waiting is how many
// bytes it has not acknowledged. Both stay 0 on systems that do not report them. Any
// goroutine may call it, even during a write.
func (s *Socket) Delivered() (progress uint64, waiting int) {
	c, ok := s.Conn.(syscall.Conn)
	if !ok {
		return 0, 0
	}
	raw, err := c.SyscallConn()
	if err != nil {
		return 0, 0
	}
	_ = raw.Control(func(fd uintptr) { progress, waiting = delivered(int(fd)) }) // fails only if the socket is closed
	return progress, waiting
}
