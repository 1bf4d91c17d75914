// Package alloctest measures what a function allocates, and what reading a peer's bytes
// costs, for tests.
package alloctest

import (
	"math"
	"runtime/debug"
	"testing"
)

// Want fails t unless calls of f allocate at most most on average; name says what f
// does. Under the race detector, where a sync.Pool drops values at random, and with
// coverage it only calls f.
//
// The count is that of the whole process. The collector, which empties pools, does not
// run meanwhile, and the least of several counts is taken, so that another goroutine
// does not add to it.
func Want(t testing.TB, name string, most float64, f func()) {
	t.Helper()
	if Race || testing.CoverMode() != "" {
		f()
		return
	}
	defer debug.SetGCPercent(debug.SetGCPercent(-1))
	least := math.Inf(1)
	for range 5 {
		if least = min(least, testing.AllocsPerRun(200, f)); least <= most {
			return
		}
	}
	t.Errorf("%s allocates %v times, want %v at most", name, least, most)
}
