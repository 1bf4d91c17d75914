package http2

import (
	"os"
	"time"
)

// A bodyWait measures how long readers have waited for a request's body. Without a
// bound, a client that sends a byte now and then would hold its upstream's
// connection for ever. It is guarded by the connection's mu.
type bodyWait struct {
	waitingSince int64 // when the current wait began, or 0
	waitedBefore int64 // total of earlier waits, in nanoseconds
	unbounded    bool  // no time limit: see NoBodyTimeout
}

// awaitBodyLocked waits until Read has something to return.
func (s *stream) awaitBodyLocked() {
	if s.bufferedLocked() {
		return
	}
	if s.server == nil || s.c.o.BodyTimeout <= 0 {
		for !s.bufferedLocked() {
			s.readable.Wait()
		}
		return
	}
	c, w := s.c, &s.server.bodyWait
	w.waitingSince = max(c.now(), 1)
	c.server.waiting++
	for !s.bufferedLocked() {
		s.readable.Wait()
	}
	c.server.waiting--
	w.waitedBefore += c.now() - w.waitingSince
	w.waitingSince = 0
}

// expired reports whether a Read has waited too long. taken is the number of bytes
// read so far.
func (w *bodyWait) expired(now, taken int64, o *Options) bool {
	if w.waitingSince == 0 || w.unbounded {
		return false
	}
	silent, most := now-w.waitingSince, int64(o.BodyTimeout)
	if silent > most {
		return true
	}
	if o.MinRate <= 0 {
		return false
	}
	return w.waitedBefore+silent > most+int64(float64(taken)/float64(o.MinRate)*float64(time.Second))
}

// expireBodiesLocked fails each Read that has waited too long. The stream stays open,
// so that the client can be answered.
func (c *ServerConn) expireBodiesLocked(now int64) {
	if c.waiting == 0 {
		return
	}
	for _, s := range c.streams {
		if !s.bufferedLocked() && !s.server.responded && s.server.bodyWait.expired(now, s.taken, &c.o) {
			s.readErr = os.ErrDeadlineExceeded
			s.queue.drop()
			s.readable.Broadcast()
		}
	}
}

// NoBodyTimeout lifts Options.BodyTimeout for this stream. It is for requests that
// may be silent for a long time.
func (s *ServerStream) NoBodyTimeout() {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	s.bodyWait.unbounded = true
}
