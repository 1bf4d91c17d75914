package splice

import (
	"time"

	"github.com/drawbridge-gateway/drawbridge/bridge/socket"
)

// readFrom records a read of n bytes from the direction's source. If the source floods,
// the splice stops reading from it for a while.
func (s *Splice) readFrom(d *direction, n int, now time.Duration) {
	if answered := d.reverse.bytes; answered != d.answered {
		d.answered = answered
		d.flood.Answered()
	}
	if d.flood.Read(n, now) {
		s.pause(d.from)
	}
}

// pause stops reading from a side for a while.
func (s *Splice) pause(x *side) {
	if s.closed || s.closing || x.paused || s.registration.loop == nil || !s.registration.loop.pause(x) {
		return
	}
	x.paused, x.readable = true, false
	if s.resumeTimer == nil {
		s.resumeTimer = time.AfterFunc(socket.FloodPause, s.resume)
	} else {
		s.resumeTimer.Reset(socket.FloodPause)
	}
}

// resume reads from the paused sides again.
func (s *Splice) resume() {
	s.mu.Lock()
	s.resumeLocked()
	ended := s.claimDone()
	s.mu.Unlock()
	if ended {
		s.notifyDone()
	}
}

func (s *Splice) resumeLocked() {
	defer s.recoverPanic()
	for _, x := range s.sides() {
		if x.paused {
			x.paused = false
			if !s.closed && x.fd >= 0 {
				s.registration.loop.resume(x)
			}
		}
	}
}
