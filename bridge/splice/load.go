package splice

import (
	"sync/atomic"
	"time"
)

// One loop carries many connections for less CPU than several: it takes more events for
// each wait. So connections gather on the first loops as long as these can carry them,
// and move to another loop when one is overloaded.
const (
	// window is how long a load is measured at a time.
	window = 10 * time.Millisecond

	// overloaded is the share of a window, in permille, above which a loop is
	// overloaded, and relieveAfter how many such windows in a row make it move splices
	// away. A short burst moves no splice.
	overloaded   = 950
	relieveAfter = 3

	// willing is the highest load, in permille, at which a loop takes splices from
	// another one. Two loops become one only if their loads together are below it.
	// Moving half of an overloaded loop's work leaves both above willing together, so
	// splices do not move to and fro.
	willing = 500

	// filled is the load, in permille, above which new splices go to another loop.
	filled = 700
)

// A load measures how busy a loop is. Only current may be called by other goroutines
// than the loop's.
type load struct {
	number uint32        // the number of the window
	began  time.Duration // when the window began
	waited time.Duration // how long the loop has waited in this window
	active int           // splices that had a turn in this window
	full   int           // windows in a row in which the loop was overloaded

	busy atomic.Int64 // in the last window, in permille
	at   atomic.Int64 // when the last window ended
}

// current returns the share of time in which the loop was busy lately, in permille. It
// is 0 for a loop that has only waited for some windows.
func (l *load) current(now time.Duration) int64 {
	if now-time.Duration(l.at.Load()) > 5*window {
		return 0
	}
	return l.busy.Load()
}

// wait records a wait, and reports whether it ended the window. Then the caller calls
// next.
func (l *load) wait(from, to time.Duration) (ended bool) {
	l.waited += to - from
	return to-l.began >= window
}

// next publishes the load of the window that ends, and begins another. It returns the
// load, and how many splices were active.
func (l *load) next(now time.Duration) (busy int64, active int) {
	length := max(now-l.began, 1)
	busy, active = int64(1000*(length-l.waited)/length), l.active
	if l.full++; busy < overloaded {
		l.full = 0
	}
	l.busy.Store(busy)
	l.at.Store(int64(now))
	l.number, l.began, l.waited, l.active = l.number+1, now, 0, 0
	return busy, active
}

// count counts a splice, given the last window in which it was counted.
func (l *load) count(last *uint32) {
	if *last != l.number {
		*last = l.number
		l.active++
	}
}

// A move is a loop's decision to give splices that have work to another loop.
type move struct {
	to     *loop
	number int // how many splices move
}

// plan decides at the end of a window which splices of the loop at index i move, given
// the loads of all loops in permille.
func plan(loads []int64, i, active, full int) (to, number int) {
	if full >= relieveAfter {
		best := -1
		for j, l := range loads {
			if j != i && l < willing && (best < 0 || l < loads[best]) {
				best = j
			}
		}
		if best >= 0 {
			return best, active / 2 // a single splice would only move the load
		}
		return 0, 0
	}
	for j := range i {
		if loads[i]+loads[j] < willing {
			return j, active
		}
	}
	return 0, 0
}

// choose returns the loop for a new splice: the first that has room, or else the one
// with the lowest load. loads is not empty.
func choose(loads []int64) int {
	best := 0
	for i, l := range loads {
		if l < filled {
			return i
		}
		if l < loads[best] {
			best = i
		}
	}
	return best
}

// loads returns the load of each loop, in permille.
func (e *Engine) loads() []int64 {
	now := e.now()
	loads := make([]int64, len(e.loops))
	for i, l := range e.loops {
		loads[i] = l.load.current(now)
	}
	return loads
}
