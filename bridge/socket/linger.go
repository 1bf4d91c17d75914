package socket

import "time"

const (
	// lingerTime and lingerBytes bound the wait of LingerClose.
	lingerTime  = time.Second
	lingerBytes = 256 << 10
)

// LingerClose closes s so that the peer can read the last bytes sent to it, such as the
// alert that explains a failed handshake. Closing a socket with unread bytes sends a
// reset, and so do bytes that arrive after the close; a reset may overtake the alert.
// So LingerClose ends the stream and reads until the peer ends its own, for at most a
// second and 256 KiB. No other goroutine may be reading; Close and Reset end the wait.
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
