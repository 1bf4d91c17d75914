// Package memory tunes the garbage collector for a gateway, and returns unused memory to
// the OS.
package memory

import (
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"sync"
	"syscall"
	"time"
)

const (
	// heapFloor is the size to which the heap may grow before the garbage collector
	// runs. A gateway has a few megabytes of live heap, and each handshake leaves about
	// 90 KiB of garbage. With Go's default of 4 MiB the collector would run thirty times
	// a second under load and use a fifth of the CPU. A larger floor brings no gain.
	heapFloor = 32 << 20
	// gcPercent is Go's default, used once the live heap exceeds half of heapFloor.
	gcPercent = 100
)

// percentFor returns the GOGC with which a heap of live bytes grows to
// heapFloor, or to twice its size if that is more.
func percentFor(live uint64) int {
	const most = 100 * heapFloor / (4 << 20) // Go multiplies its minimum heap of 4 MiB by GOGC/100
	if live == 0 {
		return most
	}
	return int(min(max(100*heapFloor/live, gcPercent+100)-100, most))
}

// A collector adjusts GOGC after each run of the garbage collector. It also returns
// unused memory to the OS when the process is idle: otherwise the memory of a burst of
// handshakes, or the stacks of many concurrent requests, would stay in the process for
// minutes.
type collector struct {
	live []metrics.Sample

	mu      sync.Mutex
	percent int
	stopped bool
	timer   *time.Timer // calls look

	// checking guards the fields below, which only look uses.
	checking sync.Mutex
	heap     []metrics.Sample
	made     uint64    // total allocated bytes at the last look
	seen     uint64    // total allocated bytes at the last collection by look
	left     uint64    // unused bytes that could not be returned
	next     time.Time // the earliest time of another collection after little activity
	soonest  time.Time // the earliest time if many goroutines have ended
	most     uint64    // the highest number of goroutines at a look since the last collection
}

const (
	// checkEvery is how often a collector checks whether the process is idle.
	checkEvery = time.Second
	// quiet is the maximum number of bytes that an idle process allocates between
	// two checks.
	quiet = 256 << 10
	// spare is the amount of unused memory that a collector does not return.
	spare = 2 << 20
	// activity is the number of bytes that closing a few connections allocates. If
	// the process allocated less, there is hardly any garbage.
	activity = 16 << 10
	// restFor is the minimum time between collections after little activity, as a
	// multiple of the last collection's CPU time. So collections use at most 0.2 % of a
	// core. The wall time is unsuitable: on a busy machine it is many times longer.
	restFor   = 500
	leastRest = 5 * time.Second
	// If at least fewest goroutines and a quarter of all have ended, connections have
	// closed: then there is garbage, and only leastRest applies.
	fewest = 32
	// usualStack is the usual stack size of a goroutine.
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

// Pace lets a small heap grow before the garbage collector runs, and returns unused
// memory to the OS while the process is idle. stop ends this and restores the default
// GOGC. Only one Pace may run at a time.
func Pace() (stop func()) {
	c := newCollector()
	c.adjust()
	c.follow()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.timer = time.AfterFunc(checkEvery, func() {
		c.checking.Lock()
		defer c.checking.Unlock()
		if c.ended() {
			return
		}
		c.look()
		c.mu.Lock()
		defer c.mu.Unlock()
		if !c.stopped {
			c.timer.Reset(checkEvery)
		}
	})
	return func() {
		c.mu.Lock()
		c.stopped = true
		c.timer.Stop()
		c.mu.Unlock()
		c.checking.Lock() // wait for a running look
		defer c.checking.Unlock()
		debug.SetGCPercent(gcPercent)
	}
}

func (c *collector) ended() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.stopped
}

// look collects garbage and returns memory to the OS if the process is idle and enough
// memory is unused.
func (c *collector) look() {
	unused, live, made := c.unused()
	idle := made-c.made < quiet
	c.made, c.left = made, min(c.left, unused)
	worth := max(live/4, spare)
	if !idle {
		return
	}
	// Memory that was allocated since the last collection may be unused too: the runtime
	// counts it as live if its own collector ran during a burst. Memory that was live at
	// the last collection may be garbage now, for example after a thousand connections
	// closed, which allocates little. Only another collection can detect this, so one
	// runs from time to time.
	recent := made - c.seen
	next := c.next
	if goroutines := c.goroutines(); goroutines >= c.most {
		c.most = goroutines
	} else if c.most-goroutines > max(fewest, c.most/4) {
		next = c.soonest
	}
	if unused-c.left > worth || recent > worth || recent > activity && !time.Now().Before(next) {
		before := cpuTime()
		debug.FreeOSMemory()
		c.seen = made
		c.left, _, _ = c.unused() // memory lost to fragmentation: a second attempt would not help
		c.soonest = time.Now().Add(leastRest)
		c.next = time.Now().Add(max(leastRest, restFor*(cpuTime()-before)))
		c.most = c.goroutines()
	}
}

// cpuTime returns the CPU time that the process has used.
func cpuTime() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u) // fails only for bad arguments
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// unused returns three numbers of bytes from the runtime's metrics: unused now, live
// after the last collection, and allocated in total.
func (c *collector) unused() (unused, live, made uint64) {
	metrics.Read(c.heap)
	value := func(i int) uint64 { return c.heap[i].Value.Uint64() }
	live, made, held, free, stacks, goroutines := value(0), value(1), value(2), value(3), value(4), c.goroutines()
	garbage := max(held, live) - live
	stacks -= min(stacks, goroutines*usualStack) // stacks of ended goroutines count until the next collection
	return garbage + free + stacks, live, made
}

// goroutines returns the number of goroutines at the last call of unused.
func (c *collector) goroutines() uint64 { return c.heap[5].Value.Uint64() }

// A cycle is never reachable, so the next garbage collection runs its finalizer.
type cycle struct{ of *collector }

// follow makes the runtime call adjust after each garbage collection. The calls never
// overlap, because each one schedules the next.
func (c *collector) follow() {
	runtime.SetFinalizer(&cycle{c}, func(*cycle) {
		if c.adjust() {
			c.follow()
		}
	})
}

// adjust sets GOGC and reports whether to call it again. It ignores small changes,
// because setting GOGC briefly stops the world.
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
