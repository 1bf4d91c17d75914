package http2

// turns are streams that wait, the one that has waited longest first. A stream
// waits in one at most.
type turns struct{ head, tail *stream }

// join puts s at the end, unless it waits already.
func (t *turns) join(s *stream) {
	if s.waitsIn == t {
		return
	}
	s.waitsIn = t
	if t.tail == nil {
		t.head = s
	} else {
		t.tail.behind = s
	}
	t.tail = s
}

// leaveTurns takes s out of what it waits in, if it does.
func (s *stream) leaveTurns() {
	t := s.waitsIn
	if t == nil {
		return
	}
	var before *stream
	for at := t.head; at != s; at = at.behind {
		before = at
	}
	if before == nil {
		t.head = s.behind
	} else {
		before.behind = s.behind
	}
	if t.tail == s {
		t.tail = before
	}
	s.behind, s.waitsIn = nil, nil
}

// wake lets the first stream look whether its turn has come.
func (t *turns) wake() {
	if t.head != nil {
		t.head.writable.Signal()
	}
}

// wakeAll lets all of them look.
func (t *turns) wakeAll() {
	for s := t.head; s != nil; s = s.behind {
		s.writable.Signal()
	}
}
