package guard

import (
	"sync"
	"time"
)

// A Limiter allows one log line in each interval, so that unauthenticated clients
// cannot fill the disk with log lines. Its methods may be called concurrently.
type Limiter struct {
	every time.Duration

	mu         sync.Mutex
	last       time.Time
	suppressed int
}

// NewLimiter returns a limiter that allows the first line.
func NewLimiter(every time.Duration) *Limiter { return &Limiter{every: every} }

// Allow reports whether a line may be written, and how many were suppressed since the
// last one.
func (l *Limiter) Allow() (suppressed int, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	if !l.last.IsZero() && now.Sub(l.last) < l.every {
		l.suppressed++
		return 0, false
	}
	suppressed, l.suppressed, l.last = l.suppressed, 0, now
	return suppressed, true
}
