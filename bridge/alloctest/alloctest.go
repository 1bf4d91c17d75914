// Package alloctest measures the allocations of a function, and the cost of reading a
// peer's bytes, for tests.
package alloctest

import (
	"math"
	"runtime/debug"
	"testing"
)

// Want fails t unless calls of f allocate at most most on average. name describes
// f. Under the race detector, where a sync.Pool drops values at random, and with
// coverage it only calls f.
//
// Want counts the allocations of the whole process. It stops the collector, which
// empties pools, and takes the lowest of several counts, so that another goroutine
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
