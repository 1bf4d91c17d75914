package http2

// waitQueue is a first-in, first-out queue of waiting streams. A stream waits in at
// most one.
type waitQueue struct{ head, tail *stream }

// join appends s, unless it is already waiting here.
func (t *waitQueue) join(s *stream) {
	if s.waitingIn == t {
		return
	}
	s.waitingIn = t
	if t.tail == nil {
		t.head = s
	} else {
		t.tail.nextWaiting = s
	}
	t.tail = s
}

// leaveQueue removes s from the queue it waits in, if any.
func (s *stream) leaveQueue() {
	t := s.waitingIn
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
	s.nextWaiting, s.waitingIn = nil, nil
}

// wake wakes the first stream to check whether it may continue.
func (t *waitQueue) wake() {
	if t.head != nil {
		t.head.wakeWriterLocked()
	}
}

// wakeAll wakes all waiting streams.
func (t *waitQueue) wakeAll() {
	for s := t.head; s != nil; s = s.nextWaiting {
		s.wakeWriterLocked()
	}
}
