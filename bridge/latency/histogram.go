package latency

import (
	"math/bits"
	"sync/atomic"
	"time"
)

const (
	// shortest is the upper bound of the first bucket. Each further one is
	// twice that of the one before: 0.5 ms, 1 ms, 2 ms and so on to 65.536 s.
	shortest = 500 * time.Microsecond

	bounded = 18 // buckets that have an upper bound
)

// Bounds returns the upper bounds of the buckets, which are part of their
// buckets, but for that of the last, which has none.
func Bounds() [bounded]time.Duration {
	var all [bounded]time.Duration
	for i := range all {
		all[i] = shortest << i
	}
	return all
}

// A Histogram counts how long something took, each time. The zero value is ready
// for use. All methods may be called concurrently.
type Histogram struct {
	buckets     [bounded + 1]atomic.Uint64
	nanoseconds atomic.Uint64
}

// Observe counts one that took d. Less than nothing is taken for nothing.
func (h *Histogram) Observe(d time.Duration) {
	d = max(d, 0)
	h.buckets[bucket(d)].Add(1)
	h.nanoseconds.Add(uint64(d))
}

// bucket returns the first one that d is within the bound of.
func bucket(d time.Duration) int {
	if d == 0 {
		return 0
	}
	return min(bits.Len64(uint64(d-1)/uint64(shortest)), bounded)
}

// Counts are those of a Histogram at some moment.
type Counts struct {
	Buckets [bounded + 1]uint64 // how many were within each bound, but not within the one before
	Total   time.Duration       // that all took together
}

// Counts returns the present ones. What is observed meanwhile may be in one part
// of them and not yet in the other.
func (h *Histogram) Counts() Counts {
	c := Counts{Total: time.Duration(h.nanoseconds.Load())}
	for i := range h.buckets {
		c.Buckets[i] = h.buckets[i].Load()
	}
	return c
}

// Count returns how many were observed.
func (c Counts) Count() uint64 {
	var n uint64
	for _, m := range c.Buckets {
		n += m
	}
	return n
}

// Add adds what was counted between before and now.
func (c *Counts) Add(now, before *Counts) {
	for i := range c.Buckets {
		c.Buckets[i] += now.Buckets[i] - before.Buckets[i]
	}
	c.Total += now.Total - before.Total
}
