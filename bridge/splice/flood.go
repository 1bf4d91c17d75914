package splice

import "time"

const (
	// smallRead is the size below which a read costs more than it carries: a record of a
	// byte has 23 bytes in TLS 1.3.
	smallRead = 64

	// smallReads is how many small reads one side may cause while the other side sends
	// nothing, and how many more each second allows.
	smallReads = 2000

	// floodPause is how long the splice reads nothing from a side that causes more. What
	// arrives meanwhile is read at once.
	floodPause = 20 * time.Millisecond

	// largeRead is the size of a read that shows that a side sends in larger pieces again.
	largeRead = 16 << 10
)

// A floodMeter notices a side that sends its bytes one by one, without an answer, faster than
// any program needs them: each costs two system calls and a wake-up. Keystrokes are far
// slower, and the messages of a conversation have answers.
type floodMeter struct {
	left     int           // small reads left; less than 0: the side floods
	refilled time.Duration // when left was last refilled
	answered uint64        // bytes that the other side had sent at the last small read
}

// read records a read of n bytes, while the other side had sent the given number. It
// reports whether to pause.
func (f *floodMeter) read(n int, answered uint64, now time.Duration) (pause bool) {
	switch {
	case answered != f.answered:
		f.answered, f.left = answered, smallReads
	case n >= smallRead:
		if n >= largeRead {
			f.left = max(f.left, 0)
		}
		return f.left < 0 // it arrived in many pieces, during the pause
	case f.left < 0:
		f.left = 0 // the side has slowed down
	}
	if f.left > 0 {
		f.left--
		return false
	}
	f.left = min(int((now-f.refilled).Seconds()*smallReads), smallReads)
	f.refilled = now
	if f.left > 0 {
		return false
	}
	f.left = -1
	return true
}

// pause stops reading from a side for a while.
func (s *Splice) pause(x *side) {
	if s.closed || s.closing || x.paused || s.registration.loop == nil || !s.registration.loop.pause(x) {
		return
	}
	x.paused, x.readable = true, false
	if s.resumeTimer == nil {
		s.resumeTimer = time.AfterFunc(floodPause, s.resume)
	} else {
		s.resumeTimer.Reset(floodPause)
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
