package http2

import "github.com/drawbridge-gateway/drawbridge/bridge/socket"

// Budget returns the budget for buffers that hold the response before it is passed to
// Write. All streams of a connection share it.
func (s *ServerStream) Budget() *socket.Budget { return &s.c.server.responses }

// ReadLimit returns how much of the response should be read at once: as much as the
// client's windows let through. It also limits the Budget to the connection's window, so
// that the buffers of all streams hold little more than the client has declared to take.
func (s *ServerStream) ReadLimit() int {
	c := s.c
	c.mu.Lock()
	defer c.mu.Unlock()
	c.server.responses.SetLimit(int(max(c.sendWindow, 0)))
	return int(min(s.sendWindow, c.sendWindow))
}

// WriteWhileOpen is Write, but stops where the client keeps a window shut. It returns how
// much of p it sent. If that is less than all, Write must be called next.
func (s *ServerStream) WriteWhileOpen(p []byte) (sent int, err error) { return s.write(p, true) }
