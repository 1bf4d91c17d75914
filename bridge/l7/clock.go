package l7

import (
	"sync/atomic"
	"time"
)

// maxTick is how often a Server looks whether a limit has been passed, unless
// it has shorter limits: then it looks so often that they are kept to within a
// part of them.
const maxTick = 250 * time.Millisecond

// A clock tells a Server's connections roughly what time it is, without asking
// the kernel, and watches over their limits: so one timer serves them all, and
// no read or write sets one. It runs while there are connections.
type clock struct {
	now  atomic.Int64 // nanoseconds since began, as of the last tick
	tick atomic.Int64 // nanoseconds between ticks
	text atomic.Pointer[string]

	began   time.Time
	timer   *time.Timer // guarded by Server.mu; nil until the first connection
	running bool        // likewise
}

// date returns the time as a Date field has it (RFC 9110, section 5.6.7).
func (c *clock) date() string {
	if text := c.text.Load(); text != nil {
		return *text
	}
	return formatDate(time.Now())
}

func formatDate(t time.Time) string { return t.UTC().Format("Mon, 02 Jan 2006 15:04:05 GMT") }

// set makes the time the present one.
func (c *clock) set() {
	t := time.Now()
	c.now.Store(int64(t.Sub(c.began)) + 1)
	if text := c.text.Load(); text == nil || t.Nanosecond() < int(2*c.tick.Load()) || c.tick.Load() < int64(maxTick) {
		text := formatDate(t)
		c.text.Store(&text)
	}
}

// after returns when d will have passed, for a limit of a connection; 0 if d
// is 0: never.
func (c *clock) after(d time.Duration) int64 {
	if d <= 0 {
		return 0
	}
	return c.now.Load() + c.tick.Load() + int64(d)
}

// keep sees to it that a limit is kept to within a thirtieth: a connection's deadline
// is up to two ticks late.
func (c *clock) keep(d time.Duration) {
	for want := max(int64(d)/64, int64(time.Millisecond)); ; {
		tick := c.tick.Load()
		if want >= tick || c.tick.CompareAndSwap(tick, want) {
			return
		}
	}
}

// startClockLocked sets the clock going. s.mu is held.
func (s *Server) startClockLocked() {
	if s.clock.running {
		return
	}
	s.clock.running = true
	s.clock.set()
	every := time.Duration(s.clock.tick.Load())
	if s.clock.timer == nil {
		s.clock.timer = time.AfterFunc(every, s.sweep)
	} else {
		s.clock.timer.Reset(every)
	}
}

// sweep looks at every connection, and stops the clock when there are none.
func (s *Server) sweep() {
	s.mu.Lock()
	if len(s.conns) == 0 {
		s.clock.running = false
		s.mu.Unlock()
		return
	}
	s.clock.set()
	now := s.clock.now.Load()
	var late []*conn
	for c := range s.conns {
		if c.due(now) {
			late = append(late, c)
		}
	}
	s.clock.timer.Reset(time.Duration(s.clock.tick.Load()))
	s.mu.Unlock()
	for _, c := range late {
		c.check(now)
	}
}

// stopClock stops the clock for good: there are no connections any more.
func (s *Server) stopClock() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.clock.timer != nil {
		s.clock.timer.Stop()
	}
}
