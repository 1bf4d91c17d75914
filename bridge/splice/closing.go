package splice

import (
	"time"

	"github.com/drawbridge-gateway/drawbridge/bridge/socket"
)

// finish ends the splice without losing anything: nothing more is read, and each side is
// closed when its peer has acknowledged everything that was read for it. A reset
// before that would destroy what the kernel still holds. A peer that takes nothing
// for as long as Linger is not waited for.
func (s *Splice) finish(how Ending, cause error, now time.Duration) {
	s.note(how, cause)
	if s.closing || s.closed {
		return
	}
	s.closing = true
	s.closeDelivered(now)
	if !s.closed {
		s.watch.startClosing(now)
	}
}

// closeDelivered closes the sides that have everything, or get nothing more.
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

// mayClose reports whether closing the direction's destination now destroys
// nothing that may still arrive.
func (s *Splice) mayClose(d *direction, now time.Duration) bool {
	x := d.to
	switch {
	case x.gone:
		return true
	case !x.queue.empty():
		return s.watch.gaveUp(d.moves, now)
	case x.unix, x.ended && d.back.eof:
		return true // the kernel delivers the rest, and sends no reset
	}
	d.moves.acknowledged(now, socket.Undelivered(x.fd))
	if d.moves.undelivered > 0 {
		return s.watch.gaveUp(d.moves, now)
	}
	return d.bytes == 0 || now-d.moves.last >= settle
}

// undelivered returns how many bytes the side has not acknowledged.
func (x *side) undelivered() int {
	if x.unix || x.fd < 0 {
		return 0
	}
	return socket.Undelivered(x.fd)
}

// look is called by the watch's timer.
func (s *Splice) look() {
	s.mu.Lock()
	s.lookLocked()
	ended := s.ended()
	s.mu.Unlock()
	if ended {
		s.tell()
	}
}

func (s *Splice) lookLocked() {
	defer s.rescue()
	now := s.engine.now()
	switch {
	case s.closed:
	case s.closing:
		if s.closeDelivered(now); !s.closed {
			s.watch.waitMore()
		}
	default:
		if how := s.watch.passed(now, s.upstream.undelivered(), s.client.undelivered()); how != "" {
			s.note(how, nil)
			s.close()
		}
	}
}
