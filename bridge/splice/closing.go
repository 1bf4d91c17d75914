package splice

import (
	"time"

	"github.com/drawbridge-gateway/drawbridge/bridge/socket"
)

// finish ends the splice and delivers everything that was read. It stops reading, and
// closes each side once its peer has acknowledged everything sent to it. An earlier
// reset would destroy bytes that the kernel still holds. It gives up on a peer that
// accepts no bytes for Linger.
func (s *Splice) finish(ending Ending, cause error, now time.Duration) {
	s.setEnding(ending, cause)
	if s.closing || s.closed {
		return
	}
	s.closing = true
	s.closeDelivered(now)
	if !s.closed {
		s.watch.startClosing(now)
	}
}

// closeDelivered closes each side that has received everything, or whose time has
// passed.
func (s *Splice) closeDelivered(now time.Duration) {
	for _, d := range []*direction{&s.toUpstream, &s.toClient} {
		if d.to.fd >= 0 && s.mayClose(d, now) {
			d.to.close()
		}
	}
	if s.client.fd < 0 && s.upstream.fd < 0 {
		s.close()
	}
}

// mayClose reports whether the direction's destination can be closed now without
// destroying bytes that may still arrive.
func (s *Splice) mayClose(d *direction, now time.Duration) bool {
	x := d.to
	switch {
	case x.dead:
		return true
	case !x.queue.empty():
		return s.watch.stuck(d.progress, now)
	case x.unix, x.ended && d.reverse.eof:
		return true // the kernel delivers the rest and sends no reset
	}
	d.progress.acknowledged(now, socket.Undelivered(x.fd))
	if d.progress.undelivered > 0 {
		return s.watch.stuck(d.progress, now)
	}
	return d.bytes == 0 || now-d.progress.last >= settle
}

// undelivered returns how many bytes the side's peer has not acknowledged.
func (x *side) undelivered() int {
	if x.unix || x.fd < 0 {
		return 0
	}
	return socket.Undelivered(x.fd)
}

// look runs when the watch's timer fires.
func (s *Splice) look() {
	s.mu.Lock()
	s.lookLocked()
	ended := s.claimDone()
	s.mu.Unlock()
	if ended {
		s.notifyDone()
	}
}

func (s *Splice) lookLocked() {
	defer s.recoverPanic()
	now := s.engine.now()
	switch {
	case s.closed:
	case s.closing:
		if s.closeDelivered(now); !s.closed {
			s.watch.backOff()
		}
	default:
		if ending := s.watch.expired(now, s.upstream.undelivered(), s.client.undelivered()); ending != "" {
			s.setEnding(ending, nil)
			s.close()
		}
	}
}
