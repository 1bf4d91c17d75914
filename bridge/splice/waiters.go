package splice

import (
	"net"
	"runtime"
	"syscall"
)

// wait has a goroutine wait for each side of the splice until it is closed.
func (e *Engine) wait(s *Splice) {
	for i := range 2 {
		conn := s.sides()[i].conn
		e.waiting.Go(func() { e.waitToRead(s, i, conn) })
	}
}

func (s *Splice) sides() [2]*side { return [2]*side{&s.client, &s.upstream} }

// waitToRead gives the splice a turn whenever a side may have become readable.
func (e *Engine) waitToRead(s *Splice, which int, conn net.Conn) {
	until(conn, syscall.RawConn.Read, func() (done bool) { return e.give(s, which, false) })
}

// waitToWrite gives it one whenever a side may have become writable, until
// nothing waits to be sent to it.
func (e *Engine) waitToWrite(s *Splice, which int, conn net.Conn) {
	until(conn, syscall.RawConn.Write, func() (done bool) { return e.give(s, which, true) })
}

// until calls f at once and whenever conn has become ready, until it is done or
// conn is closed.
func until(conn net.Conn, wait func(syscall.RawConn, func(uintptr) bool) error, f func() (done bool)) {
	raw, err := conn.(syscall.Conn).SyscallConn()
	if err != nil {
		return // closed
	}
	_ = wait(raw, func(uintptr) bool { return f() })
}

// give gives a splice its turn, as a side may have become readable or writable.
// It returns whether that need not be waited for any more.
func (e *Engine) give(s *Splice, which int, writable bool) (done bool) {
	s.mu.Lock()
	if x := s.sides()[which]; !writable {
		x.readable, x.urgent = true, true // the runtime does not say what it is
	}
	for more := true; more; {
		n := 0
		if s.wantsMuch() {
			n = 1
		}
		w := e.space(n)
		more = s.turn(w)
		e.putSpace(w)
		if more {
			s.mu.Unlock()
			runtime.Gosched() // others may wait for mu
			s.mu.Lock()
		}
	}
	ended := s.ended()
	done = s.closed
	for i, x := range s.sides() {
		waits := &s.place.waits[i]
		switch {
		case s.closed:
		case writable && i == which:
			*waits = !x.queue.empty()
			done = !*waits
		case !*waits && !x.queue.empty():
			*waits = true
			conn := x.conn
			e.waiting.Go(func() { e.waitToWrite(s, i, conn) })
		}
	}
	s.mu.Unlock()
	if ended {
		s.tell()
	}
	return done
}
