package socket

import "net"

// A Carrier moves a Socket's bytes after HandOver.
type Carrier interface {
	// Read and Write serve the layer above the Socket, such as TLS. Neither may
	// block: Read fails with ErrWouldBlock, and Write accepts everything.
	Read(p []byte) (int, error)
	Write(p []byte) (int, error)

	// Close is called when another owner closes or resets the Socket, from any
	// goroutine and maybe more than once. The Carrier closes the connection and calls
	// Closed.
	Close(reset bool)

	// Traffic returns the connection's traffic, like TrafficOf.
	Traffic() (t Traffic, ok bool)
}

// HandOver gives the underlying connection to the caller, with the bytes that Fill or
// Unread left unread. From then on c serves the layer above s, and calls of Close and
// Reset. Deadlines no longer have any effect, such as the 5s that crypto/tls allows
// for a close_notify.
//
// If s is already closed, HandOver fails with net.ErrClosed. Gather must not hold any
// bytes, and no other goroutine may use s except to call Close or Reset.
func (s *Socket) HandOver(c Carrier) (conn net.Conn, taken []byte, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closing {
		return nil, nil, net.ErrClosed
	}
	taken = s.unread
	if len(s.in.taken) > 0 {
		taken = append(taken, s.in.taken...)
	}
	s.unread = nil
	s.Release()
	s.carrier = c
	return s.Conn, taken, nil
}

// Closed runs the OnClose callbacks. The Carrier calls it after it has closed the
// connection.
func (s *Socket) Closed() { s.notifyClosed() }
