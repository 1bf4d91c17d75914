package upstream

import (
	"math/rand/v2"
	"time"
)

// A backoff doubles the pause after each failure, with jitter so that
// endpoints that failed together are not retried together.
type backoff struct {
	first, most time.Duration

	pause time.Duration
	begin time.Time // when the pause began
	until time.Time // no attempt before this time
}

// grow starts a pause. Failures during a pause have the same cause, and are
// ignored.
func (b *backoff) grow(now time.Time) {
	if now.Before(b.until) {
		return
	}
	b.pause = min(max(2*b.pause, b.first), b.most)
	b.begin, b.until = now, now.Add(b.pause/2+rand.N(b.pause))
}

// shrink shortens future pauses by one part in parts.
func (b *backoff) shrink(parts int) {
	b.pause -= b.pause / time.Duration(parts)
	if b.pause < b.first/2 {
		b.pause = 0
	}
}

// cut shortens the current pause to the first pause.
func (b *backoff) cut() {
	if soon := b.begin.Add(b.first); soon.Before(b.until) {
		b.until = soon
	}
}

// clear forgets all failures.
func (b *backoff) clear() { b.pause, b.until = 0, time.Time{} }
