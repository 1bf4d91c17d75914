package socket

import "syscall"

// Delivered tells how the peer takes what was written: progress is a number that
// changes when its kernel has taken more, and waiting is how many bytes it has not
// taken yet. Both stay 0 where the system does not tell. It may be called by any
// goroutine, while another writes.
func (s *Socket) Delivered() (progress uint64, waiting int) {
	c, ok := s.Conn.(syscall.Conn)
	if !ok {
		return 0, 0
	}
	raw, err := c.SyscallConn()
	if err != nil {
		return 0, 0
	}
	_ = raw.Control(func(fd uintptr) { progress, waiting = delivered(int(fd)) }) // fails only if it is closed
	return progress, waiting
}
