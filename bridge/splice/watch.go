package splice

import (
	"sync"
	"sync/atomic"
	"time"
)

// looks is how often a limit's time is divided to look whether anything
// happened: a limit is kept to within one part in that many.
const looks = 8

// A watch bounds how long nothing happens to a splice.
type watch struct {
	idle, linger         time.Duration
	cut                  func(Ending)
	toUpstream, toClient progress

	mu    sync.Mutex
	timer *time.Timer
	half  bool // one direction is over
	done  bool // both are
}

// A progress is what a watch sees of a direction: a number that grows with
// everything that happens, and is odd while something waits to be sent. So one
// timer can watch it, and no read or write sets one.
type progress struct {
	activity atomic.Uint64

	// Of the watch: the activity last seen, and when it was first seen.
	seen  uint64
	since time.Time
}

// moved says that bytes have moved.
func (p *progress) moved() { p.activity.Add(2) }

// began says that something waits to be sent, ended that it does no more.
func (p *progress) began() { p.activity.Store(p.activity.Load()&^1 + 3) }
func (p *progress) ended() { p.activity.Store(p.activity.Load()&^1 + 2) }

// start starts the one timer.
func (w *watch) start() {
	w.mu.Lock()
	defer w.mu.Unlock()
	now := time.Now()
	w.toUpstream.since, w.toClient.since = now, now
	w.timer = time.AfterFunc(w.idle/looks, w.look)
}

// startLinger is called as a direction ends: from now on the other one has
// less time to stay silent.
func (w *watch) startLinger() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.done || w.half {
		return
	}
	w.half = true
	now := time.Now()
	w.toUpstream.since, w.toClient.since = now, now
	if w.timer.Stop() { // else look is about to run, and sets it
		w.timer.Reset(w.linger / looks)
	}
}

func (w *watch) stop() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.done = true
	if w.timer != nil {
		w.timer.Stop()
	}
}

// look looks whether a limit has been passed. The timer runs it.
func (w *watch) look() {
	if how := w.passed(time.Now()); how != "" {
		w.cut(how)
	}
}

// passed returns which limit has been passed at now, if one has, and else
// starts the timer again.
func (w *watch) passed(now time.Time) Ending {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.done {
		return ""
	}
	up, upWaits := w.toUpstream.look(now)
	down, downWaits := w.toClient.look(now)
	quiet, waits := min(up, down), upWaits || downWaits
	switch {
	case upWaits && up >= w.idle, downWaits && down >= w.idle:
		return Idle // a side reads nothing, whatever else goes on
	case quiet >= w.idle:
		return Idle
	case w.half && !waits && quiet >= w.linger:
		return Linger
	}
	every := w.idle
	if w.half {
		every = w.linger
	}
	w.timer.Reset(every / looks)
	return ""
}

// look returns for how long nothing has happened, as far as looking now and
// then can tell, and whether something waits to be sent.
func (p *progress) look(now time.Time) (quiet time.Duration, waits bool) {
	activity := p.activity.Load()
	if activity != p.seen {
		p.seen, p.since = activity, now
	}
	return now.Sub(p.since), activity%2 == 1
}
