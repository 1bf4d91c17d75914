package main

import (
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"sync"
)

const (
	// heapFloor is how far the heap may grow before the garbage collector runs.
	// A gateway has a few megabytes that live, and each handshake leaves some
	// 90 KiB behind: by Go's default of 4 MiB the collector would run thirty
	// times a second under load, for a fifth of all CPU. More than this brings
	// nothing.
	heapFloor = 32 << 20
	// gcPercent is what Go's default is, and holds from half of heapFloor on.
	gcPercent = 100
)

// percentFor returns the GOGC with which a heap of that much that lives may
// grow to heapFloor, and to twice its size if that is more.
func percentFor(live uint64) int {
	const most = 100 * heapFloor / (4 << 20) // Go multiplies its least heap, of 4 MiB, by it
	if live == 0 {
		return most
	}
	return int(min(max(100*heapFloor/live, gcPercent+100)-100, most))
}

// A collector sets how far the heap may grow, anew after each time that the
// garbage collector has run.
type collector struct {
	live []metrics.Sample

	mu      sync.Mutex
	percent int
	stopped bool
}

// paceCollector starts one and returns what ends it: the heap then grows by the
// default again.
func paceCollector() (stop func()) {
	c := &collector{live: []metrics.Sample{{Name: "/gc/heap/live:bytes"}}}
	c.adjust()
	c.follow()
	return func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.stopped = true
		debug.SetGCPercent(gcPercent)
	}
}

// A cycle is never reachable, so that the next time the collector runs it finds
// that, and calls what was set to be called.
type cycle struct{ of *collector }

// follow has adjust called after each time. The runtime calls it, and no two at
// once: each is set by the one before.
func (c *collector) follow() {
	runtime.SetFinalizer(&cycle{c}, func(*cycle) {
		if c.adjust() {
			c.follow()
		}
	})
}

// adjust reports whether it is to be called again. It stops the world for a
// moment, and so does nothing for small changes.
func (c *collector) adjust() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.stopped {
		return false
	}
	metrics.Read(c.live)
	want := percentFor(c.live[0].Value.Uint64())
	if d := want - c.percent; d*8 > c.percent || -d*8 > c.percent {
		c.percent = want
		debug.SetGCPercent(want)
	}
	return true
}
