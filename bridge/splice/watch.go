package splice

import "time"

// looks is how many times within a limit the watch looks whether the peers have
// acknowledged anything. So a limit ends at most one part in that many late.
const looks = 24

const (
	// firstPause and lastPause bound the time between two looks at whether a
	// side that is being closed has everything. Each is twice as long as the one
	// before.
	firstPause = time.Millisecond
	lastPause  = 64 * time.Millisecond

	// settle is how long a peer has had everything before it is sent a reset.
	// Some systems discard what an application has not read when one arrives.
	settle = 50 * time.Millisecond
)

// A watch bounds how long nothing moves through a splice. A byte moves when it is
// read, when the kernel takes it, and when the peer acknowledges it. Times are of
// the Engine's clock. Splice.mu guards a watch.
type watch struct {
	idle, linger         time.Duration
	toUpstream, toClient progress

	timer   *time.Timer
	looked  time.Duration
	half    bool // one direction is over
	closing bool // nothing more is read
	began   time.Duration
	pause   time.Duration
	done    bool
}

// A progress is what a watch knows of one direction.
type progress struct {
	last        time.Duration // when bytes moved last
	waits       bool          // bytes are queued: the kernel does not take them
	undelivered int           // not acknowledged at the last look
}

// acknowledged notes how many bytes the peer has not acknowledged. That it is more
// than before is no progress of the peer's: what was written has been noted.
func (p *progress) acknowledged(now time.Duration, undelivered int) {
	if undelivered < p.undelivered {
		p.last = now
	}
	p.undelivered = undelivered
}

// start starts the one timer, which calls look.
func (w *watch) start(now time.Duration, look func()) {
	w.toUpstream.last, w.toClient.last, w.looked = now, now, now
	w.timer = time.AfterFunc(w.idle/looks, look)
}

// startLinger is called when a direction is over: the other one has less time to
// stay silent from now on.
func (w *watch) startLinger(now time.Duration) {
	if w.done || w.half {
		return
	}
	w.half = true
	w.toUpstream.last, w.toClient.last = now, now
	w.timer.Reset(w.linger / looks)
}

// startClosing is called when nothing more is read: from now on the watch looks
// often, until all is delivered.
func (w *watch) startClosing(now time.Duration) {
	w.closing, w.began, w.pause = true, now, firstPause
	w.timer.Reset(w.pause)
}

// waitMore has the timer look again at a side that is being closed.
func (w *watch) waitMore() {
	w.pause = min(2*w.pause, lastPause)
	w.timer.Reset(w.pause)
}

// gaveUp reports whether a direction has delivered nothing for too long since the
// splice began to close.
func (w *watch) gaveUp(p *progress, now time.Duration) bool {
	return w.closing && now-max(p.last, w.began) >= w.linger
}

func (w *watch) stop() {
	w.done = true
	if w.timer != nil {
		w.timer.Stop()
	}
}

// passed returns which limit has passed, "" if none has: then the timer runs
// again. It is told how many bytes each side has not acknowledged.
func (w *watch) passed(now time.Duration, upstream, client int) Ending {
	moved := max(w.toUpstream.last, w.toClient.last) > w.looked
	w.toUpstream.acknowledged(now, upstream)
	w.toClient.acknowledged(now, client)
	w.looked = now

	limit, how := w.idle, Idle
	if w.half && !w.toUpstream.waits && !w.toClient.waits && w.linger < w.idle {
		limit, how = w.linger, Linger
	}
	left := max(w.toUpstream.last, w.toClient.last) + limit - now
	if left <= 0 {
		return how
	}
	for _, p := range []*progress{&w.toUpstream, &w.toClient} {
		if p.waits { // whatever else moves
			if left = min(left, p.last+w.idle-now); left <= 0 {
				return Idle
			}
		}
	}
	// With nothing on its way there is nothing to be acknowledged.
	pause := limit / 2
	if moved || upstream > 0 || client > 0 {
		pause = limit / looks
	}
	w.timer.Reset(min(left, pause))
	return ""
}
