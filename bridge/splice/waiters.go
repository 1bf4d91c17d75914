package splice

import (
	"net"
	"runtime"
	"syscall"
)

// wait starts a goroutine for each side that waits for bytes until the side is closed.
func (e *Engine) wait(s *Splice) {
	for i := range 2 {
		conn := s.sides()[i].conn
		e.waiting.Go(func() { e.waitToRead(s, i, conn) })
	}
}

func (s *Splice) sides() [2]*side { return [2]*side{&s.client, &s.upstream} }

// waitToRead runs a turn whenever a side may have become readable.
func (e *Engine) waitToRead(s *Splice, side int, conn net.Conn) {
	pollUntil(conn, syscall.RawConn.Read, func() (done bool) { return e.runTurn(s, side, false) })
}

// waitToWrite runs a turn whenever a side may have become writable, until its queue is
// empty.
func (e *Engine) waitToWrite(s *Splice, side int, conn net.Conn) {
	pollUntil(conn, syscall.RawConn.Write, func() (done bool) { return e.runTurn(s, side, true) })
}

// pollUntil calls f at once and whenever conn becomes ready, until f returns true or
// conn is closed.
func pollUntil(conn net.Conn, wait func(syscall.RawConn, func(uintptr) bool) error, f func() (done bool)) {
	raw, err := conn.(syscall.Conn).SyscallConn()
	if err != nil {
		return // conn is closed
	}
	_ = wait(raw, func(uintptr) bool { return f() })
}

// runTurn runs a turn after a side may have become readable or writable. It reports
// whether the caller can stop waiting.
func (e *Engine) runTurn(s *Splice, side int, writable bool) (done bool) {
	s.mu.Lock()
	if x := s.sides()[side]; !writable {
		x.readable, x.readToEAGAIN = true, true // the runtime does not report the kind of event
	}
	for more := true; more; {
		n := 0
		if s.canMoveBulk() {
			n = 1
		}
		w := e.getWorkspace(n)
		more = s.turn(w)
		e.putWorkspace(w)
		if more {
			s.mu.Unlock()
			runtime.Gosched() // other goroutines may wait for mu
			s.mu.Lock()
		}
	}
	ended := s.claimDone()
	done = s.closed
	for i, x := range s.sides() {
		awaiting := &s.registration.awaitingWrite[i]
		switch {
		case s.closed:
		case writable && i == side:
			*awaiting = !x.queue.empty()
			done = !*awaiting
		case !*awaiting && !x.queue.empty():
			*awaiting = true
			conn := x.conn
			e.waiting.Go(func() { e.waitToWrite(s, i, conn) })
		}
	}
	s.mu.Unlock()
	if ended {
		s.notifyDone()
	}
	return done
}
