package splice

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
		"larger pieces":               {func(int) (int, uint64) { return smallRead, 0 }, every, false},
		"keystrokes":                  {func(int) (int, uint64) { return 1, 0 }, 20 * time.Millisecond, false},
		"a thousand bytes a second":   {func(int) (int, uint64) { return 1, 0 }, time.Millisecond, false},
		"a conversation":              {func(i int) (int, uint64) { return 1, uint64(i) }, every, false},
		"an answer to each 100 bytes": {func(i int) (int, uint64) { return 1, uint64(i / 100) }, every, false},
	} {
		t.Run(name, func(t *testing.T) {
			f, now, paused := floodMeter{left: smallReads}, time.Duration(0), false
			for i := range 20_000 {
				n, answered := c.read(i)
				paused = f.read(n, answered, now) || paused
				now += c.interval
			}
			if paused != c.pauses {
				t.Errorf("paused: %v", paused)
			}
		})
	}
}

// A side that floods is read once a pause, until it slows down or sends large pieces.
func TestAFloodEnds(t *testing.T) {
	f, now := floodMeter{left: -1}, time.Second
	for range 10 {
		now += floodPause
		if !f.read(500, 0, now) {
			t.Fatal("the flood was not paused")
		}
	}
	if g := f; g.read(1, 0, now) {
		t.Error("a side that has slowed down was paused")
	}
	if f.read(largeRead, 0, now) || f.read(500, 0, now) {
		t.Error("a side that sends large pieces was paused")
	}
}
