package l4

import "time"

// looks is how often a limit's time is divided to look whether anything
// happened: a limit is kept to within one part in that many.
const looks = 8

// startWatch starts the one timer that bounds how long nothing happens.
func (s *splice) startWatch() {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	s.toUpstream.since, s.toClient.since = now, now
	s.timer = time.AfterFunc(s.idle/looks, s.watch)
}

// startLinger is called as a direction ends: from now on the other one has
// less time to stay silent.
func (s *splice) startLinger() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.done || s.half {
		return
	}
	s.half = true
	now := time.Now()
	s.toUpstream.since, s.toClient.since = now, now
	if s.timer.Stop() { // else watch is about to run, and sets it
		s.timer.Reset(s.linger / looks)
	}
}

func (s *splice) stopWatch() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.done = true
	s.timer.Stop()
}

// watch looks whether a limit has been passed. The timer runs it.
func (s *splice) watch() {
	if how := s.passed(time.Now()); how != "" {
		s.cut(how, nil)
	}
}

// passed returns which limit has been passed at now, if one has, and else
// starts the timer again.
func (s *splice) passed(now time.Time) ending {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.done {
		return ""
	}
	up, upWriting := s.toUpstream.look(now)
	down, downWriting := s.toClient.look(now)
	quiet, writing := min(up, down), upWriting || downWriting
	switch {
	case upWriting && up >= s.idle, downWriting && down >= s.idle:
		return endIdle // a side reads nothing, whatever else goes on
	case quiet >= s.idle:
		return endIdle
	case s.half && !writing && quiet >= s.linger:
		return endLinger
	}
	every := s.idle
	if s.half {
		every = s.linger
	}
	s.timer.Reset(every / looks)
	return ""
}

// look returns for how long nothing has happened, as far as looking now and
// then can tell, and whether a write is under way.
func (d *direction) look(now time.Time) (quiet time.Duration, writing bool) {
	activity := d.activity.Load()
	if activity != d.seen {
		d.seen, d.since = activity, now
	}
	return now.Sub(d.since), activity%2 == 1
}
