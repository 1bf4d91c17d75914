package socket

import (
	"testing"
	"time"
)

func TestFloodsOfSmallReadsArePaused(t *testing.T) {
	const every = time.Millisecond / 10
	for name, c := range map[string]struct {
		read     func(i int) (n int, answered uint64)
		interval time.Duration
		pauses   bool
	}{
		"bytes one by one":            {func(int) (int, uint64) { return 1, 0 }, every, true},
		"records of a byte":           {func(int) (int, uint64) { return 23, 0 }, every, true},
		"larger pieces":               {func(int) (int, uint64) { return SmallRead, 0 }, every, false},
		"keystrokes":                  {func(int) (int, uint64) { return 1, 0 }, 20 * time.Millisecond, false},
		"a thousand bytes a second":   {func(int) (int, uint64) { return 1, 0 }, time.Millisecond, false},
		"a conversation":              {func(i int) (int, uint64) { return 1, uint64(i) }, every, false},
		"an answer to each 100 bytes": {func(i int) (int, uint64) { return 1, uint64(i / 100) }, every, false},
	} {
		t.Run(name, func(t *testing.T) {
			var f FloodMeter
			now, last, paused := time.Duration(0), uint64(0), false
			for i := range 20_000 {
				n, answered := c.read(i)
				if answered != last {
					f.Answered()
					last = answered
				}
				paused = f.Read(n, now) || paused
				now += c.interval
			}
			if paused != c.pauses {
				t.Errorf("paused: %v", paused)
			}
		})
	}
}

// The bridge reads from a flooding peer once per FloodPause, until the peer slows
// down or sends large pieces.
func TestAFloodEnds(t *testing.T) {
	f, now := FloodMeter{flooding: true, spent: smallReads}, time.Second
	for range 10 {
		now += FloodPause
		if !f.Read(500, now) {
			t.Fatal("the flood was not paused")
		}
	}
	if g := f; g.Read(1, now) {
		t.Error("a side that has slowed down was paused")
	}
	if f.Read(largeRead, now) || f.Read(500, now) {
		t.Error("a side that sends large pieces was paused")
	}
}
