package http2

import (
	"os"
	"time"
)

// A bodyWait measures how long readers have waited for a request's body. Without a
// bound, a client that sends a byte now and then would hold its upstream's
// connection forever. It is guarded by the connection's mu.
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
	s.queue.freeRead()
	if s.server == nil || s.c.o.BodyTimeout <= 0 {
		for !s.bufferedLocked() {
			s.readable.Wait()
		}
		return
	}
	s.server.beginWaitLocked()
	for !s.bufferedLocked() {
		s.readable.Wait()
	}
	s.server.endWaitLocked()
}

// beginWaitLocked starts the clock of a wait for the body. s.c.mu is held.
func (s *ServerStream) beginWaitLocked() {
	s.bodyWait.waitingSince = max(s.c.now(), 1)
	s.c.server.waiting++
}

// endWaitLocked stops the clock.
func (s *ServerStream) endWaitLocked() {
	w := &s.bodyWait
	s.c.server.waiting--
	w.waitedBefore += s.c.now() - w.waitingSince
	w.waitingSince = 0
}

// AwaitBody waits for more of the body without a goroutine, whose stack would be most
// of the memory that a slow upload uses. It arranges that ready is called once, in
// another goroutine, as soon as Read does not have to wait. Until then, Read and AwaitBody
// must not be called. If Read does not have to wait now, AwaitBody returns false, and
// ready is not called. Either way the view that Read returned last becomes invalid.
func (s *ServerStream) AwaitBody(ready func()) bool {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	s.reopenWindowLocked(s.viewed)
	s.viewed = 0
	if s.bufferedLocked() {
		return false
	}
	s.queue.freeRead()
	s.beginWaitLocked()
	s.onReadable = ready
	return true
}

// takeReadyLocked returns the function that AwaitBody registered if it is to be called
// now, else nil. s.c.mu is held.
func (s *ServerStream) takeReadyLocked() func() {
	ready := s.onReadable
	if ready == nil || !s.bufferedLocked() {
		return nil
	}
	s.onReadable = nil
	s.endWaitLocked()
	return ready
}

// wakeReaderLocked wakes the goroutines that wait for the body or for the response.
// s.c.mu is held.
func (s *stream) wakeReaderLocked() {
	s.readable.Broadcast()
	if s.server != nil {
		if ready := s.server.takeReadyLocked(); ready != nil {
			s.c.server.assignLocked(task{s.server, ready})
		}
	}
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
			s.wakeReaderLocked()
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
