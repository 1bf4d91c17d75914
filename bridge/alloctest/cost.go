package alloctest

import (
	"fmt"
	"math"
	"os"
	"runtime"
	"runtime/debug"
	"testing"
	"time"
)

// A Bound limits the cost of reading one byte of a peer. Zero fields mean the
// default bounds.
type Bound struct {
	Memory int           // bytes allocated for one received byte; 0: 8
	CPU    time.Duration // time for one received byte; 0: 50ns
	Ends   bool          // the bytes end their connection
	Reason string        // why the bound differs from the default, or the cost exceeds the goal; required in these cases
}

// overhead is how many bytes f may allocate in addition to those for received bytes.
const overhead = 32 << 10

// WantCost fails t unless f, which reads received bytes of a peer, stays within bound.
// Allocated bytes are an upper bound of the bytes held at any time. CPU time is the
// time of the thread, which a busy machine hardly changes. It is not measured under
// the race detector.
func WantCost(t testing.TB, received int, b Bound, f func()) {
	t.Helper()
	if (b.Memory != 0 || b.CPU != 0) && b.Reason == "" {
		t.Error("a bound that differs from the default needs a reason")
	}
	if b.Memory == 0 {
		b.Memory = 8
	}
	if b.CPU == 0 {
		b.CPU = 50 * time.Nanosecond
	}
	defer debug.SetGCPercent(debug.SetGCPercent(-1))
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	memory, cpu := int64(1)<<62, time.Duration(1)<<62
	for range 3 { // the minimum counts, because other goroutines of the process may add to it
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		begin := threadTime()
		f()
		cpu = min(cpu, threadTime()-begin)
		runtime.ReadMemStats(&after)
		memory = min(memory, int64(after.TotalAlloc-before.TotalAlloc))
	}
	if b.Ends {
		ReportEnd(t, received, cpu)
	} else {
		ReportCost(t, received, float64(memory)/float64(received), float64(cpu)/float64(received), b.Reason)
	}
	if most := int64(b.Memory)*int64(received) + overhead; memory > most {
		t.Errorf("%d bytes are allocated for %d received, want %d at most", memory, received, most)
	}
	if most := b.CPU * time.Duration(received); !Race && cpu > most {
		t.Errorf("%v of CPU time for %d bytes received, want %v at most", cpu, received, most)
	}
}

// goal is the CPU time for one received byte that no input should exceed without a
// reason, in nanoseconds: 1 ms for 64 KiB. The tests have higher bounds, because a busy
// machine adds to the time.
const goal = 1e6 / (64 << 10)

// ReportCost logs the cost of each received byte, for `make costs`. CPU time is in
// nanoseconds. memory is NaN if it was not measured, and so is cpu. Under `make costs`,
// which needs a quiet machine, a cost above the goal without a reason fails t.
func ReportCost(t testing.TB, received int, memory, cpu float64, reason string) {
	t.Helper()
	line := fmt.Sprintf("cost: %d bytes received:", received)
	if !math.IsNaN(memory) {
		line += fmt.Sprintf(" %.1f bytes of memory for each, %.0f KiB in all", memory, memory*float64(received)/1024)
	}
	if !math.IsNaN(cpu) {
		line += fmt.Sprintf(" %.1f ns for each, %.2f ms for 64 KiB", cpu, cpu*65536/1e6)
	}
	if cpu > goal && reason != "" {
		line += ": " + reason
	}
	t.Log(line)
	if cpu > goal && reason == "" && os.Getenv("DRAWBRIDGE_COSTS") != "" {
		t.Error("more than 1 ms for 64 KiB needs a reason")
	}
}

// ReportEnd logs the cost of received bytes that end their connection. No connection can
// cost more this way.
func ReportEnd(t testing.TB, received int, cpu time.Duration) {
	t.Helper()
	t.Logf("cost: %d bytes received, which end the connection: %.2f ms in all", received, cpu.Seconds()*1000)
}
