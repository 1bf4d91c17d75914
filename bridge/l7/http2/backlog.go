package http2

import "sync/atomic"

// A backlog is the memory of responses that wait for the client. Without a bound, a client
// that reads nothing would make each of its requests hold a large buffer of its upstream's
// response.
type backlog struct {
	held  int         // bytes that the callers of Write hold while they wait, guarded by mu
	tight atomic.Bool // the connection holds as much as Options.MaxMemory allows
}

// addUnsentLocked adds n bytes to the backlog. c.mu is held.
func (c *ServerConn) addUnsentLocked(n int) {
	c.unsent.held += n
	c.unsent.tight.Store(c.memory+c.unsent.held > c.o.MaxMemory)
}

// Tight reports whether the connection's streams hold so much memory that the reader of a
// response must hold little while it waits for more and while Write waits. Any goroutine may
// call it at any time.
func (s *ServerStream) Tight() bool { return s.c.server.unsent.tight.Load() }
