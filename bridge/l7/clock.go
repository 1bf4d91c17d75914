package l7

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/drawbridge-gateway/drawbridge/bridge/intake"
)

// maxTick is how often a Server checks its limits. With shorter limits it checks more
// often, so that each limit is enforced with little relative delay.
const maxTick = 250 * time.Millisecond

// A clock gives a Server's connections the approximate time without a system
// call, and enforces their limits: one timer serves them all, and no read or
// write sets a timer. It runs while connections exist.
type clock struct {
	now  atomic.Int64 // nanoseconds since began, as of the last tick
	tick atomic.Int64 // nanoseconds between ticks
	text atomic.Pointer[string]

	began   time.Time
	mu      sync.Mutex
	timer   *time.Timer // nil until the first connection
	running bool
}

// Now returns the time as of the last tick, in nanoseconds since the clock began.
func (c *clock) Now() int64 { return c.now.Load() }

// Date returns the time in the form of a Date field (RFC 9110, section 5.6.7).
func (c *clock) Date() string {
	if text := c.text.Load(); text != nil {
		return *text
	}
	return formatDate(time.Now())
}

func formatDate(t time.Time) string { return t.UTC().Format("Mon, 02 Jan 2006 15:04:05 GMT") }

// set updates the clock to the present time.
func (c *clock) set() {
	t := time.Now()
	c.now.Store(int64(t.Sub(c.began)) + 1)
	if text := c.text.Load(); text == nil || t.Nanosecond() < int(2*c.tick.Load()) || c.tick.Load() < int64(maxTick) {
		text := formatDate(t)
		c.text.Store(&text)
	}
}

// after returns the time, in nanoseconds of the clock, at which d has passed.
// It returns 0, which means never, if d is 0.
func (c *clock) after(d time.Duration) int64 {
	if d <= 0 {
		return 0
	}
	return c.now.Load() + c.tick.Load() + int64(d)
}

// KeepWithin makes the clock tick often enough to enforce a limit at most a thirtieth
// late: a connection's deadline is up to two ticks late.
func (c *clock) KeepWithin(d time.Duration) {
	for want := max(int64(d)/64, int64(time.Millisecond)); ; {
		tick := c.tick.Load()
		if want >= tick || c.tick.CompareAndSwap(tick, want) {
			return
		}
	}
}

// startClock starts the clock. It is called when a connection begins.
func (s *Server) startClock() {
	c := &s.clock
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.running {
		return
	}
	c.running = true
	c.set()
	every := time.Duration(c.tick.Load())
	if c.timer == nil {
		c.timer = time.AfterFunc(every, s.sweep)
	} else {
		c.timer.Reset(every)
	}
}

// sweep checks every connection, and stops the clock when no connection is left.
func (s *Server) sweep() {
	for _, c := range s.tick() {
		c.check(s.clock.now.Load())
	}
}

// tick advances the clock, and returns the connections that have exceeded a
// limit.
func (s *Server) tick() []*conn {
	c := &s.clock
	c.mu.Lock()
	defer c.mu.Unlock()
	c.set()
	now := c.now.Load()
	var late []*conn
	if s.intake.Walk(func(o intake.Owner) {
		if c := o.(*conn); c.due(now) {
			late = append(late, c)
		}
	}) == 0 {
		c.running = false
		return nil
	}
	c.timer.Reset(time.Duration(c.tick.Load()))
	return late
}

// stopClock stops the clock for good once no connection is left.
func (s *Server) stopClock() {
	c := &s.clock
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.timer != nil {
		c.timer.Stop()
	}
}
