package upstream

import (
	"math/rand/v2"
	"time"
)

// A backoff spaces out attempts that go wrong, each time twice as far, with
// jitter so that many endpoints that failed together are not tried together.
type backoff struct {
	first, most time.Duration

	pause time.Duration
	begin time.Time // of the pause
	until time.Time // nothing is to be tried before
}

// strike begins a pause. What goes wrong during a pause is of its cause, and
// changes nothing.
func (b *backoff) strike(now time.Time) {
	if now.Before(b.until) {
		return
	}
	b.pause = min(max(2*b.pause, b.first), b.most)
	b.begin, b.until = now, now.Add(b.pause/2+rand.N(b.pause))
}

// ease makes the pauses to come shorter by one part in so many.
func (b *backoff) ease(parts int) {
	b.pause -= b.pause / time.Duration(parts)
	if b.pause < b.first/2 {
		b.pause = 0
	}
}

// cut makes the pause that is under way one as after the first strike.
func (b *backoff) cut() {
	if soon := b.begin.Add(b.first); soon.Before(b.until) {
		b.until = soon
	}
}

// clear forgets everything that went wrong.
func (b *backoff) clear() { b.pause, b.until = 0, time.Time{} }
