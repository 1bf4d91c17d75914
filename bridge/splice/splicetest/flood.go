package splicetest

import (
	"bytes"
	"fmt"
	"runtime"
	"sync/atomic"
	"testing"
	"time"
)

// A Flood is a side that writes until it is stopped. It checks the bytes that the
// other side reads.
type Flood struct {
	from, To *Peer         // From writes, To reads
	Accepted atomic.Int64  // bytes that Write accepted
	enough   chan struct{} // closed to end the stream
	Ended    chan error    // the writer's error
}

// pattern is written repeatedly. Its length is coprime to that of any buffer, so lost
// or repeated bytes are noticed.
var pattern = func() []byte {
	p := make([]byte, 65521)
	Fill(p, 1)
	return p
}()

// NewFlood starts to write.
func NewFlood(from, to *Peer, enough chan struct{}) *Flood {
	f := &Flood{from: from, To: to, enough: enough, Ended: make(chan error, 1)}
	go func() { f.Ended <- f.write() }()
	return f
}

func (f *Flood) write() error {
	for {
		select {
		case <-f.enough:
			return f.from.CloseWrite()
		default:
		}
		n, err := f.from.Write(pattern)
		f.Accepted.Add(int64(n))
		if err != nil {
			return err
		}
	}
}

// Read reads to the end and returns the fault in the bytes, or "".
func (f *Flood) Read() string {
	buf := make([]byte, len(pattern))
	for at := 0; ; {
		from := at % len(pattern)
		n, err := f.To.Read(buf[:len(pattern)-from])
		if !bytes.Equal(buf[:n], pattern[from:from+n]) {
			return fmt.Sprintf("bytes that were not sent, after %d", at)
		}
		at += n
		if err != nil {
			if how := f.To.How(err); how != Clean || int64(at) != f.Accepted.Load() {
				return fmt.Sprintf("%d bytes and a %s end, of %d that were sent", at, how, f.Accepted.Load())
			}
			return ""
		}
	}
}

// Settle waits until the counts have not changed for a while: no event signals that
// every buffer on the path is full. If filling pauses for longer, the test is less
// strict, never more.
func Settle(t *testing.T, counts ...*atomic.Int64) {
	total := func() (sum int64) {
		for _, c := range counts {
			sum += c.Load()
		}
		return sum
	}
	last, since := total(), time.Now()
	Eventually(t, "the writers are stalled", func() bool {
		if now := total(); now != last {
			last, since = now, time.Now()
		}
		return time.Since(since) > 300*time.Millisecond
	})
}

// Heap returns how much memory is in use.
func Heap() int64 {
	runtime.GC()
	runtime.GC() // the second cycle frees the contents of sync.Pools
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}
