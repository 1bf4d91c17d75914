package http2

import (
	"os"
	"time"
)

// A pace is how a request's body comes, as long as somebody waits for it. A
// client that sends a byte now and then would hold on to whoever waits for the
// rest, an upstream for one, for ever. All of it is guarded by the connection's
// mu.
type pace struct {
	since  int64 // when the wait that goes on began; 0: none does
	waited int64 // in all waits before that, nanoseconds
	free   bool  // it may take its time: see Patient
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
	c, p := s.c, &s.server.pace
	p.since = max(c.now(), 1)
	c.server.waiting++
	for !s.bufferedLocked() {
		s.readable.Wait()
	}
	c.server.waiting--
	p.waited += c.now() - p.since
	p.since = 0
}

// late reports whether a Read has waited for longer than it is to, taken bytes
// having come.
func (p *pace) late(now, taken int64, o *Options) bool {
	if p.since == 0 || p.free {
		return false
	}
	silent, most := now-p.since, int64(o.BodyTimeout)
	if silent > most {
		return true
	}
	if o.MinRate <= 0 {
		return false
	}
	return p.waited+silent > most+int64(float64(taken)/float64(o.MinRate)*float64(time.Second))
}

// lateLocked lets each Read return that has waited for too long. The stream
// goes on, so that the client can be answered.
func (c *ServerConn) lateLocked(now int64) {
	if c.waiting == 0 {
		return
	}
	for _, s := range c.streams {
		if !s.bufferedLocked() && !s.server.responded && s.server.pace.late(now, s.taken, &c.o) {
			s.readErr = os.ErrDeadlineExceeded
			s.queue.drop()
			s.readable.Broadcast()
		}
	}
}

// Patient lets the client take its time with the body, whatever
// Options.BodyTimeout says: there are requests that are silent by right.
func (s *ServerStream) Patient() {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	s.pace.free = true
}
