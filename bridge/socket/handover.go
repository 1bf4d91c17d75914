package socket

import "net"

// A Carrier moves a Socket's bytes after HandOver.
type Carrier interface {
	// Read and Write are net.Conn's for what is layered on the Socket. Neither
	// may block: Read fails with ErrWouldBlock, Write takes what it is given.
	Read(p []byte) (int, error)
	Write(p []byte) (int, error)

	// Close is called when somebody closes or resets the Socket, by any
	// goroutine and maybe more than once. The Carrier closes the connection
	// and calls Closed.
	Close(reset bool)
}

// HandOver gives the connection beneath s away to whoever calls it, with what
// Fill took in, or Unread gave back, and nobody has read. What is layered on s, and whoever closes
// s, deals with c from here on; deadlines have no meaning any more, such as the
// 5s that crypto/tls gives a close_notify.
//
// If s is closed already HandOver fails with net.ErrClosed. Nothing may be held
// by Gather, and s must not be in use by another goroutine but for Close and
// Reset.
func (s *Socket) HandOver(c Carrier) (conn net.Conn, taken []byte, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closing {
		return nil, nil, net.ErrClosed
	}
	taken = s.ahead
	if len(s.in.taken) > 0 {
		taken = append(taken, s.in.taken...)
	}
	s.ahead = nil
	s.Release()
	s.carrier = c
	return s.Conn, taken, nil
}

// Closed is called by the Carrier when it has closed the connection.
func (s *Socket) Closed() { s.tellClosed() }
