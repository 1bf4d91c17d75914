package main

import (
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"sync"
	"time"
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
// garbage collector has run. And it gives back to the system what is not in use
// when nothing goes on: else a burst of handshakes, or the stacks of many requests
// at once, would be part of the process for minutes, if little comes after them.
type collector struct {
	live []metrics.Sample

	mu      sync.Mutex
	percent int
	stopped bool
	timer   *time.Timer // has it look

	// Of look, which one goroutine calls at a time.
	looking sync.Mutex
	heap    []metrics.Sample
	made    uint64 // bytes that had been allocated when it looked last
	seen    uint64 // and when it collected last
	left    uint64 // bytes that nobody uses and that could not be given back
}

const (
	// lookEvery is how often a collector looks whether anything goes on.
	lookEvery = time.Second
	// quiet is how many bytes are allocated meanwhile if nothing does.
	quiet = 256 << 10
	// spare is how much that is not in use is not worth the effort.
	spare = 2 << 20
	// usualStack is what a goroutine that has done something has.
	usualStack = 8 << 10
)

func newCollector() *collector {
	return &collector{
		live: []metrics.Sample{{Name: "/gc/heap/live:bytes"}},
		heap: []metrics.Sample{
			{Name: "/gc/heap/live:bytes"}, {Name: "/gc/heap/allocs:bytes"},
			{Name: "/memory/classes/heap/objects:bytes"}, {Name: "/memory/classes/heap/free:bytes"},
			{Name: "/memory/classes/heap/stacks:bytes"}, {Name: "/sched/goroutines:goroutines"},
		},
	}
}

// paceCollector starts one and returns what ends it: the heap then grows by the
// default again.
func paceCollector() (stop func()) {
	c := newCollector()
	c.adjust()
	c.follow()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.timer = time.AfterFunc(lookEvery, func() {
		c.looking.Lock()
		defer c.looking.Unlock()
		if c.ended() {
			return
		}
		c.look()
		c.mu.Lock()
		defer c.mu.Unlock()
		if !c.stopped {
			c.timer.Reset(lookEvery)
		}
	})
	return func() {
		c.mu.Lock()
		c.stopped = true
		c.timer.Stop()
		c.mu.Unlock()
		c.looking.Lock() // a look that has begun has ended
		defer c.looking.Unlock()
		debug.SetGCPercent(gcPercent)
	}
}

func (c *collector) ended() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.stopped
}

// look collects garbage and gives memory back if nothing goes on and that is
// worth it.
func (c *collector) look() {
	unused, live, made := c.unused()
	idle := made-c.made < quiet
	c.made, c.left = made, min(c.left, unused)
	worth := max(live/4, spare)
	// What was allocated since it collected last may be unused as well: the runtime
	// counts it as live if its own collector ran in the middle of a burst.
	if idle && (unused-c.left > worth || made-c.seen > worth) {
		debug.FreeOSMemory()
		c.seen = made
		c.left, _, _ = c.unused() // in between what is in use: no second attempt would do better
	}
}

// unused returns how many bytes nobody uses, as far as the runtime tells; how many
// lived when the heap was collected last; and how many were ever allocated.
func (c *collector) unused() (unused, live, made uint64) {
	metrics.Read(c.heap)
	value := func(i int) uint64 { return c.heap[i].Value.Uint64() }
	live, made, held, free, stacks, goroutines := value(0), value(1), value(2), value(3), value(4), value(5)
	garbage := max(held, live) - live
	stacks -= min(stacks, goroutines*usualStack) // what ended goroutines leave counts until the heap is collected
	return garbage + free + stacks, live, made
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
