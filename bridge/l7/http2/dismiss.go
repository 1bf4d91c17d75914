package http2

import (
	"time"

	h2 "golang.org/x/net/http2"
)

const (
	// dismissTime is how long an answered stream stays open while its client
	// still sends. Then it is reset. Some clients drop the unread end of a
	// response when RST_STREAM arrives, even with NO_ERROR (curl 7.88).
	dismissTime = time.Second

	// maxDismissed bounds how many streams of a connection stay open this way.
	maxDismissed = 32
)

// A dismissal is the state of an answered stream whose client still sends. Its
// data is dropped, and its window does not reopen. It is guarded by the
// connection's mu.
type dismissal struct {
	timer *time.Timer // nil: the stream is not being dismissed
}

// dismissLocked resets an answered stream after the client has had time to read
// the response.
func (s *ServerStream) dismissLocked() {
	c := s.c.server
	s.overLocked(errOver)
	if c.dismissed >= maxDismissed || c.err != nil {
		s.resetLocked(h2.ErrCodeNo, errOver)
		return
	}
	c.dismissed++
	s.dismissal.timer = time.AfterFunc(dismissTime, s.dismissalOver)
}

func (s *ServerStream) dismissalOver() {
	defer func() {
		if p := recover(); p != nil {
			s.c.panicked(p)
		}
	}()
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	s.resetLocked(h2.ErrCodeNo, errOver)
}

// endDismissalLocked is called when the stream is removed from the connection.
func (s *ServerStream) endDismissalLocked() {
	if s.dismissal.timer != nil {
		s.dismissal.timer.Stop()
		s.dismissal.timer = nil
		s.c.server.dismissed--
	}
}
