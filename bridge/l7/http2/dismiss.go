package http2

import (
	"time"

	h2 "golang.org/x/net/http2"
)

const (
	// dismissTime is for how long a stream that has been answered while its client
	// still sends is left alone before it is reset. Some clients drop a response
	// of which they have not read the end when RST_STREAM comes, even with
	// NO_ERROR (curl 7.88).
	dismissTime = time.Second

	// maxDismissed bounds how many streams of a connection wait for that.
	maxDismissed = 32
)

// A dismissal is a stream that is answered and whose client still sends. What
// comes of it is dropped, and its window stays as it is. All of it is guarded by
// the connection's mu.
type dismissal struct {
	timer *time.Timer // nil: the stream is not being dismissed
}

// dismissLocked resets a stream that is answered, after the client has had the time
// to read the answer.
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

// endDismissalLocked is called when the stream is none of the connection's any more.
func (s *ServerStream) endDismissalLocked() {
	if s.dismissal.timer != nil {
		s.dismissal.timer.Stop()
		s.dismissal.timer = nil
		s.c.server.dismissed--
	}
}
