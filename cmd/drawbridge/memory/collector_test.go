package memory

import (
	"os"
	"os/exec"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"sync"
	"testing"
	"time"
)

func TestPercentForLetsASmallHeapGrowToTheFloor(t *testing.T) {
	const mib = 1 << 20
	for _, c := range []struct {
		live uint64
		want int
	}{
		{0, 800}, {1, 800}, {3 * mib, 800}, {4 * mib, 700}, {8 * mib, 300}, {15 * mib, 113},
		{16 * mib, 100}, {17 * mib, 100}, {1 << 40, 100}, {1<<64 - 1, 100},
	} {
		if got := percentFor(c.live); got != c.want {
			t.Errorf("%d bytes: %d, want %d", c.live, got, c.want)
		}
	}
}

func TestCollectorFollowsTheLiveHeap(t *testing.T) {
	// This test runs in its own process, because the live heap of the other tests
	// would change the first expected value: cobra keeps the flags of every command.
	const alone = "DRAWBRIDGE_TEST_COLLECTOR"
	if os.Getenv(alone) == "" {
		cmd := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$", "-test.count=1")
		cmd.Env = append(os.Environ(), alone+"=1")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		return
	}
	before := debug.SetGCPercent(gcPercent)
	defer debug.SetGCPercent(before)
	stop := Pace()
	defer stop()
	gogc := []metrics.Sample{{Name: "/gc/gogc:percent"}}
	await := func(what string, ok func(percent uint64) bool) {
		t.Helper()
		for deadline := time.Now().Add(30 * time.Second); ; {
			runtime.GC()
			metrics.Read(gogc)
			got := gogc[0].Value.Uint64()
			if ok(got) {
				return
			}
			if time.Now().After(deadline) {
				t.Fatalf("%s: GOGC is %d", what, got)
			}
		}
	}
	await("at first", func(p uint64) bool { return p > 200 })
	ballast := make([]byte, 64<<20)
	await("with a large live heap", func(p uint64) bool { return p == gcPercent })
	runtime.KeepAlive(ballast)
	ballast = nil
	await("with a small live heap again", func(p uint64) bool { return p > 200 })
	stop()
	if got := debug.SetGCPercent(gcPercent); got != gcPercent {
		t.Errorf("after the end GOGC is %d", got)
	}
}

// The memory of a burst is returned to the OS once. A collector that ran at every
// check would waste CPU.
func TestCollectorReturnsUnusedMemory(t *testing.T) {
	// The test calls look itself. A collector with a timer would also look between
	// these calls, and its results would depend on the load of the machine.
	c := newCollector()
	debug.FreeOSMemory()
	c.look()
	released := []metrics.Sample{{Name: "/memory/classes/heap/released:bytes"}, {Name: "/gc/cycles/forced:gc-cycles"}}
	const burst = 20 << 20
	keep := make([][]byte, burst>>10)
	for i := range keep {
		keep[i] = make([]byte, 1<<10)
	}
	metrics.Read(released)
	inBurst := released[0].Value.Uint64()
	clear(keep)
	c.look() // detects many allocations, so it returns no memory
	deadline := time.Now().Add(30 * time.Second)
	for metrics.Read(released); released[0].Value.Uint64() < inBurst+burst/2; metrics.Read(released) {
		if time.Now().After(deadline) {
			t.Fatalf("%d bytes were returned in the burst, and %d since", inBurst, released[0].Value.Uint64()-inBurst)
		}
		c.look()
	}
	metrics.Read(released)
	cycles := released[1].Value.Uint64()
	for range 10 {
		c.look()
	}
	if metrics.Read(released); released[1].Value.Uint64() != cycles {
		t.Errorf("collected %d more times without any garbage", released[1].Value.Uint64()-cycles)
	}
}

// A long collection postpones the next one for a long time, unless many goroutines have
// ended: then connections have closed.
func TestCollectorNoticesThatGoroutinesEnded(t *testing.T) {
	c := newCollector()
	const held, goroutines = 64 << 20, 200
	var started, running sync.WaitGroup
	end := make(chan struct{})
	started.Add(goroutines)
	for range goroutines {
		running.Go(func() {
			memory := make([]byte, held/goroutines)
			started.Done()
			<-end
			runtime.KeepAlive(memory)
		})
	}
	started.Wait()
	for c.soonest.IsZero() {
		c.look() // until it has collected what was allocated
	}
	forced := []metrics.Sample{{Name: "/gc/cycles/forced:gc-cycles"}}
	looks := func() bool {
		metrics.Read(forced)
		before := forced[0].Value.Uint64()
		sink := make([]byte, 8*activity)
		c.look()
		runtime.KeepAlive(sink)
		metrics.Read(forced)
		return forced[0].Value.Uint64() != before
	}
	c.next, c.soonest = time.Now().Add(time.Hour), time.Time{}
	if looks() {
		t.Error("the collector runs again too early")
	}
	close(end)
	running.Wait()
	if !looks() {
		t.Error("the collector does not notice that goroutines ended")
	}
	c.next, c.soonest = time.Now().Add(time.Hour), time.Now().Add(time.Hour)
	if looks() {
		t.Error("the collector runs again at once")
	}
}

// Closing connections allocates little and frees much. Only a collection detects
// that, so an idle process runs one if there was any activity since the last one.
func TestCollectorReturnsWhatWasLiveAtItsLastCollection(t *testing.T) {
	c := newCollector()
	const held = 64 << 20
	keep := make([][]byte, held>>10)
	for i := range keep {
		keep[i] = make([]byte, 1<<10)
	}
	debug.FreeOSMemory()
	c.look()
	c.look() // counts the live memory
	released := []metrics.Sample{{Name: "/memory/classes/heap/released:bytes"}}
	metrics.Read(released)
	before := released[0].Value.Uint64()
	clear(keep)
	runtime.KeepAlive(keep)
	sink := make([]byte, 8*activity) // about as much as closing connections allocates
	c.next = time.Time{}             // the pause between collections has ended
	c.look()
	runtime.KeepAlive(sink)
	if metrics.Read(released); released[0].Value.Uint64() < before+held/2 {
		t.Errorf("of %d freed bytes, %d were returned", held, int64(released[0].Value.Uint64()-before))
	}
}
