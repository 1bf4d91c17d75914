package splice

import "time"

// looks is how often the watch checks for acknowledged bytes within a time limit. So a
// limit is enforced at most 1/looks late.
const looks = 24

const (
	// firstPause and lastPause bound the time between two checks of a side that is
	// closing. Each pause is twice as long as the previous one.
	firstPause = time.Millisecond
	lastPause  = 64 * time.Millisecond

	// settle is how long the splice waits after a peer has acknowledged everything,
	// before it sends a reset. Some systems discard bytes that the application has not
	// read when a reset arrives.
	settle = 50 * time.Millisecond
)

// A watch ends a splice that has moved no byte for too long. A byte moves when the
// splice reads it, when the kernel accepts it, and when the peer acknowledges it. Times
// are on the Engine's clock. Splice.mu guards a watch.
type watch struct {
	idle, linger         time.Duration
	toUpstream, toClient progress

	timer        *time.Timer
	lastLook     time.Duration
	halfClosed   bool // one direction has ended
	closing      bool // the splice has stopped reading
	closingSince time.Duration
	pause        time.Duration
	done         bool
}

// A progress records when one direction last moved.
type progress struct {
	last        time.Duration // when bytes last moved
	queued      bool          // bytes are queued, because the kernel accepts no more
	undelivered int           // bytes not acknowledged at the last check
}

// acknowledged records how many bytes the peer has not acknowledged. Only a smaller
// number is progress of the peer: a larger number comes from the splice's own
// writes.
func (p *progress) acknowledged(now time.Duration, undelivered int) {
	if undelivered < p.undelivered {
		p.last = now
	}
	p.undelivered = undelivered
}

// start starts the timer, which calls look.
func (w *watch) start(now time.Duration, look func()) {
	w.toUpstream.last, w.toClient.last, w.lastLook = now, now, now
	w.timer = time.AfterFunc(w.idle/looks, look)
}

// startLinger applies the shorter linger limit, once one direction has ended.
func (w *watch) startLinger(now time.Duration) {
	if w.done || w.halfClosed {
		return
	}
	w.halfClosed = true
	w.toUpstream.last, w.toClient.last = now, now
	w.timer.Reset(w.linger / looks)
}

// startClosing makes the watch check often, from when the splice stops reading until
// everything is delivered.
func (w *watch) startClosing(now time.Duration) {
	w.closing, w.closingSince, w.pause = true, now, firstPause
	w.timer.Reset(w.pause)
}

// backOff doubles the pause before the next check of a closing side.
func (w *watch) backOff() {
	w.pause = min(2*w.pause, lastPause)
	w.timer.Reset(w.pause)
}

// stuck reports whether a closing direction has delivered nothing for too long.
func (w *watch) stuck(p *progress, now time.Duration) bool {
	return w.closing && now-max(p.last, w.closingSince) >= w.linger
}

func (w *watch) stop() {
	w.done = true
	if w.timer != nil {
		w.timer.Stop()
	}
}

// expired returns the limit that has expired, or "" after it has restarted the timer.
// The arguments are the bytes that each side has not acknowledged.
func (w *watch) expired(now time.Duration, upstream, client int) Ending {
	moved := max(w.toUpstream.last, w.toClient.last) > w.lastLook
	w.toUpstream.acknowledged(now, upstream)
	w.toClient.acknowledged(now, client)
	w.lastLook = now

	limit, ending := w.idle, Idle
	if w.halfClosed && !w.toUpstream.queued && !w.toClient.queued && w.linger < w.idle {
		limit, ending = w.linger, Linger
	}
	left := max(w.toUpstream.last, w.toClient.last) + limit - now
	if left <= 0 {
		return ending
	}
	for _, p := range []*progress{&w.toUpstream, &w.toClient} {
		if p.queued { // this limit applies even if the other direction moves
			if left = min(left, p.last+w.idle-now); left <= 0 {
				return Idle
			}
		}
	}
	// Frequent checks are useless without unacknowledged bytes.
	pause := limit / 2
	if moved || upstream > 0 || client > 0 {
		pause = limit / looks
	}
	w.timer.Reset(min(left, pause))
	return ""
}
