package splice

import (
	"math"
	"testing"
	"time"
)

func TestLoadIsTheShareOfBusyTime(t *testing.T) {
	var l load
	if l.wait(0, window/4) {
		t.Fatal("a window ended early")
	}
	if !l.wait(window/2, window) {
		t.Fatal("the window did not end")
	}
	if busy, _ := l.next(window); busy != 250 {
		t.Errorf("%d permille, want 250", busy)
	}
	if busy := l.current(2 * window); busy != 250 {
		t.Errorf("others see %d permille, want 250", busy)
	}
	if busy := l.current(7 * window); busy != 0 {
		t.Errorf("others see %d permille of a loop that waits, want 0", busy)
	}
}

func TestLoadCountsEachActiveSpliceOnce(t *testing.T) {
	l := load{number: 1}
	last := [3]uint32{}
	for range 2 {
		l.count(&last[0])
		l.count(&last[1])
	}
	if _, active := l.next(window); active != 2 {
		t.Errorf("%d, want 2", active)
	}
	l.count(&last[0])
	if _, active := l.next(2 * window); active != 1 {
		t.Errorf("%d in the next window, want 1", active)
	}
}

func TestLoopsAreRelievedAfterSeveralFullWindows(t *testing.T) {
	var l load
	now := time.Duration(0)
	for i := range relieveAfter {
		if l.full != i {
			t.Fatalf("%d full windows counted, want %d", l.full, i)
		}
		now += window
		l.next(now)
	}
	l.wait(now, now+window)
	if l.next(now + window); l.full != 0 {
		t.Error("a window spent waiting counts as full")
	}
}

func TestPlanOfMoves(t *testing.T) {
	for _, row := range []struct {
		name            string
		loads           []int64
		i, active, full int
		to, number      int
	}{
		{"a loop with room keeps its splices", []int64{600, 0}, 0, 10, 0, 0, 0},
		{"a short burst moves no splice", []int64{1000, 0}, 0, 10, relieveAfter - 1, 0, 0},
		{"an overloaded loop moves half of its splices", []int64{1000, 0}, 0, 10, relieveAfter, 1, 5},
		{"splices move to the loop with the lowest load", []int64{1000, 400, 300}, 0, 10, relieveAfter, 2, 5},
		{"splices do not move to a busy loop", []int64{1000, willing}, 0, 10, relieveAfter, 0, 0},
		{"a single splice stays", []int64{1000, 0}, 0, 1, relieveAfter, 1, 0},
		{"two loops with a low load become one", []int64{200, 200}, 1, 10, 0, 0, 10},
		{"the first loop keeps its splices", []int64{200, 200}, 0, 10, 0, 0, 0},
		{"splices move to an earlier loop with room", []int64{900, 100, 300}, 2, 10, 0, 1, 10},
		{"two loops whose total load is too high stay apart", []int64{300, 200}, 1, 10, 0, 0, 0},
	} {
		if to, number := plan(row.loads, row.i, row.active, row.full); number != row.number || number > 0 && to != row.to {
			t.Errorf("%s: %d to loop %d, want %d to loop %d", row.name, number, to, row.number, row.to)
		}
	}
}

// The combined load of the two halves of an overloaded loop keeps them apart.
// Otherwise splices would move to and fro.
func TestMovesDoNotUndoEachOther(t *testing.T) {
	loads := []int64{overloaded / 2, overloaded / 2}
	if _, number := plan(loads, 1, 10, 0); number != 0 {
		t.Errorf("%d splices move back", number)
	}
}

func TestNewSplicesGatherOnTheFirstLoopWithRoom(t *testing.T) {
	for _, row := range []struct {
		loads []int64
		want  int
	}{
		{[]int64{0, 0, 0}, 0},
		{[]int64{filled - 1, 0}, 0},
		{[]int64{filled, 0}, 1},
		{[]int64{1000, 800, 900}, 1},
		{[]int64{math.MaxInt64}, 0},
	} {
		if got := choose(row.loads); got != row.want {
			t.Errorf("%v: loop %d, want %d", row.loads, got, row.want)
		}
	}
}
