package http2

// turns is a first-in, first-out queue of waiting streams. A stream waits in at
// most one.
type turns struct{ head, tail *stream }

// join appends s, unless it is already waiting here.
func (t *turns) join(s *stream) {
	if s.waitsIn == t {
		return
	}
	s.waitsIn = t
	if t.tail == nil {
		t.head = s
	} else {
		t.tail.nextWaiting = s
	}
	t.tail = s
}

// leaveTurns removes s from the queue it waits in, if any.
func (s *stream) leaveTurns() {
	t := s.waitsIn
	if t == nil {
		return
	}
	var before *stream
	for at := t.head; at != s; at = at.nextWaiting {
		before = at
	}
	if before == nil {
		t.head = s.nextWaiting
	} else {
		before.nextWaiting = s.nextWaiting
	}
	if t.tail == s {
		t.tail = before
	}
	s.nextWaiting, s.waitsIn = nil, nil
}

// wake wakes the first stream to check whether it may continue.
func (t *turns) wake() {
	if t.head != nil {
		t.head.writable.Signal()
	}
}

// wakeAll wakes all waiting streams.
func (t *turns) wakeAll() {
	for s := t.head; s != nil; s = s.nextWaiting {
		s.writable.Signal()
	}
}
