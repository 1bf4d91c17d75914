package socket

import "time"

const (
	// lingerTime and lingerBytes bound what LingerClose waits for.
	lingerTime  = time.Second
	lingerBytes = 256 << 10
)

// LingerClose closes s so that the peer can read what it was sent last, such as the
// alert that says why its handshake failed. The kernel answers a close with bytes
// unread, and bytes that come after it, with a reset, and a reset may overtake what
// was sent before. So LingerClose ends the stream and reads until the peer ends its
// own, for a second and 256 KiB at most. Nobody else may be reading; Close and Reset
// end it.
func (s *Socket) LingerClose() {
	defer s.Close()
	if s.CloseWrite() != nil || s.Conn.SetReadDeadline(time.Now().Add(lingerTime)) != nil {
		return
	}
	buf := make([]byte, 4<<10)
	for left := lingerBytes; left > 0; {
		n, err := s.Conn.Read(buf)
		if err != nil {
			return
		}
		left -= n
	}
}
