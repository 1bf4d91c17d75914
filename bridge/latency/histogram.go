package latency

import (
	"math/bits"
	"sync/atomic"
	"time"
)

const (
	// shortest is the upper bound of the first bucket. Each further bound is twice
	// the previous one: 0.5 ms, 1 ms, 2 ms and so on to 65.536 s.
	shortest = 500 * time.Microsecond

	bounded = 18 // buckets that have an upper bound
)

// Bounds returns the inclusive upper bounds of the buckets; the last bucket
// has none.
func Bounds() [bounded]time.Duration {
	var all [bounded]time.Duration
	for i := range all {
		all[i] = shortest << i
	}
	return all
}

// A Histogram counts durations. The zero value is ready for use. All methods
// may be called concurrently.
type Histogram struct {
	buckets     [bounded + 1]atomic.Uint64
	nanoseconds atomic.Uint64
}

// Observe counts one duration. A negative one counts as 0.
func (h *Histogram) Observe(d time.Duration) {
	d = max(d, 0)
	h.buckets[bucket(d)].Add(1)
	h.nanoseconds.Add(uint64(d))
}

// bucket returns the first bucket whose bound is at least d.
func bucket(d time.Duration) int {
	if d == 0 {
		return 0
	}
	return min(bits.Len64(uint64(d-1)/uint64(shortest)), bounded)
}

// Counts are the counts of a Histogram at one time.
type Counts struct {
	Buckets [bounded + 1]uint64 // durations within each bound, but not within the previous one
	Total   time.Duration       // sum of all durations
}

// Counts returns the current counts. A concurrent Observe may be visible in
// only some of them.
func (h *Histogram) Counts() Counts {
	c := Counts{Total: time.Duration(h.nanoseconds.Load())}
	for i := range h.buckets {
		c.Buckets[i] = h.buckets[i].Load()
	}
	return c
}

// Count returns the number of durations.
func (c Counts) Count() uint64 {
	var n uint64
	for _, m := range c.Buckets {
		n += m
	}
	return n
}

// Add adds the counts between before and now.
func (c *Counts) Add(now, before *Counts) {
	for i := range c.Buckets {
		c.Buckets[i] += now.Buckets[i] - before.Buckets[i]
	}
	c.Total += now.Total - before.Total
}
