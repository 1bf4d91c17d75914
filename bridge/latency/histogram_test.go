package latency

import (
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/drawbridge-gateway/drawbridge/bridge/alloctest"
)

func TestADurationCountsInTheFirstBucketThatBoundsIt(t *testing.T) {
	bounds := Bounds()
	if bounds[0] != 500*time.Microsecond || bounds[1] != time.Millisecond || bounds[len(bounds)-1] != 65536*time.Millisecond {
		t.Fatalf("bounds %v", bounds)
	}
	naive := func(d time.Duration) int {
		for i, bound := range bounds {
			if d <= bound {
				return i
			}
		}
		return len(bounds)
	}
	try := []time.Duration{0, 1, time.Hour, 1<<63 - 1}
	for _, bound := range bounds {
		try = append(try, bound-1, bound, bound+1)
	}
	for range 10_000 {
		try = append(try, time.Duration(rand.Int64N(int64(2*time.Minute))))
	}
	for _, d := range try {
		if got := bucket(d); got != naive(d) {
			t.Errorf("%v is in bucket %d, want %d", d, got, naive(d))
		}
	}
}

func TestCountsMatchObservations(t *testing.T) {
	var h Histogram
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			for range 1000 {
				h.Observe(3 * time.Millisecond)
				h.Observe(time.Hour)
				h.Observe(-1)
			}
		})
	}
	before := h.Counts()
	all.Wait()
	now := h.Counts()
	if now.Count() != 12_000 || now.Buckets[0] != 4000 || now.Buckets[3] != 4000 || now.Buckets[bounded] != 4000 ||
		now.Total != 4000*(3*time.Millisecond+time.Hour) {
		t.Errorf("counts %+v", now)
	}
	// The counts before a time and the increase since add up to the total.
	sum := before
	sum.Add(&now, &before)
	if sum != now {
		t.Errorf("%+v and the rest are %+v, want %+v", before, sum, now)
	}
}

func TestNothingIsAllocated(t *testing.T) {
	var h Histogram
	alloctest.Want(t, "Observe", 0, func() { h.Observe(time.Second) })
}

func BenchmarkObserve(b *testing.B) {
	var h Histogram
	for b.Loop() {
		h.Observe(3 * time.Millisecond)
	}
}
