package l4_test

import (
	"bytes"
	"crypto/tls"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/drawbridge-gateway/drawbridge/bridge/l4"
)

// A flood is one side that writes until it is stopped, and the check of what the other
// side reads.
type flood struct {
	from, to *peer
	accepted atomic.Int64  // bytes that Write accepted
	enough   chan struct{} // closed to end the stream
	ended    chan error    // the writer's error
}

// stretch is written repeatedly. Its length is coprime to that of any buffer, so lost
// or repeated bytes are noticed.
var stretch = func() []byte {
	p := make([]byte, 65521)
	fill(p, 1)
	return p
}()

func newFlood(from, to *peer, enough chan struct{}) *flood {
	f := &flood{from: from, to: to, enough: enough, ended: make(chan error, 1)}
	go func() { f.ended <- f.write() }()
	return f
}

func (f *flood) write() error {
	for {
		select {
		case <-f.enough:
			return f.from.closeWrite()
		default:
		}
		n, err := f.from.Write(stretch)
		f.accepted.Add(int64(n))
		if err != nil {
			return err
		}
	}
}

// read reads to the end and returns what is wrong with the bytes, or "".
func (f *flood) read() string {
	buf := make([]byte, len(stretch))
	for at := 0; ; {
		from := at % len(stretch)
		n, err := f.to.Read(buf[:len(stretch)-from])
		if !bytes.Equal(buf[:n], stretch[from:from+n]) {
			return fmt.Sprintf("bytes that were not sent, after %d", at)
		}
		at += n
		if err != nil {
			if how := f.to.how(err); how != clean || int64(at) != f.accepted.Load() {
				return fmt.Sprintf("%d bytes and a %s end, of %d that were sent", at, how, f.accepted.Load())
			}
			return ""
		}
	}
}

// settle waits until the counts have not changed for a while: no event says that every
// buffer on the path is full. If filling pauses for longer, the test asks less of the
// gate, never more.
func settle(t *testing.T, counts ...*atomic.Int64) {
	total := func() (sum int64) {
		for _, c := range counts {
			sum += c.Load()
		}
		return sum
	}
	last, since := total(), time.Now()
	eventually(t, "the writers are stalled", func() bool {
		if now := total(); now != last {
			last, since = now, time.Now()
		}
		return time.Since(since) > 300*time.Millisecond
	})
}

// heap returns how much memory is in use.
func heap() int64 {
	runtime.GC()
	runtime.GC() // the second cycle frees what sync.Pools hold
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// If the reader stalls, the writer stops once the kernel's buffers are full, and the
// gate holds little. When the reader resumes, every byte arrives.
func TestStalledReaderStopsTheWriter(t *testing.T) {
	const (
		conns    = 4
		mostHeap = 512 << 10 // per direction, of the gate and of the test's own peers
		// The buffers of two sockets on each side of the gate. Linux sizes them
		// differently; about 8 MiB is common.
		mostAccepted = 64 << 20
	)
	p := newPKI(t)
	for _, c := range []combination{
		{"tcp", "tcp", 0, 0}, {"tcp", "tcp", tls.VersionTLS13, tls.VersionTLS13},
		{"tcp", "unix", tls.VersionTLS12, 0}, {"unix", "tcp", 0, tls.VersionTLS13},
	} {
		t.Run(c.String(), func(t *testing.T) {
			before := heap()
			var floods []*flood
			var counts []*atomic.Int64
			enough := make(chan struct{})
			for range conns {
				b := c.connect(t, p, l4.Table{})
				for _, f := range []*flood{newFlood(b.client, b.upstream, enough), newFlood(b.upstream, b.client, enough)} {
					floods, counts = append(floods, f), append(counts, &f.accepted)
				}
			}
			settle(t, counts...)
			// Moving bytes need more memory, and on a slow machine some may still move.
			var grown int64
			defer func() {
				if t.Failed() {
					t.Logf("%d KiB are held for each stalled direction", grown>>10/int64(len(floods)))
				}
			}()
			eventually(t, "little is held", func() bool {
				grown = heap() - before
				return grown <= mostHeap*int64(len(floods))
			})
			for _, f := range floods {
				if n := f.accepted.Load(); n > mostAccepted {
					t.Errorf("%d MiB were accepted that the reader did not read", n>>20)
				}
			}
			close(enough)
			var readers sync.WaitGroup
			for _, f := range floods {
				readers.Go(func() {
					if wrong := f.read(); wrong != "" {
						t.Error(wrong)
					}
				})
			}
			readers.Wait()
			for _, f := range floods {
				if err := <-f.ended; err != nil {
					t.Error(err)
				}
			}
		})
	}
}

// A stalled direction does not block the other.
func TestStalledDirectionDoesNotBlockTheOther(t *testing.T) {
	p := newPKI(t)
	for _, version := range []uint16{0, tls.VersionTLS12, tls.VersionTLS13} {
		for side := range 2 {
			c := combination{"tcp", "tcp", version, version}
			t.Run(fmt.Sprintf("%v, side %d reads", c, side), func(t *testing.T) {
				t.Parallel()
				b := c.connect(t, p, l4.Table{})
				stalls, reads := b.client, b.upstream
				if side == 0 {
					stalls, reads = reads, stalls
				}
				enough := make(chan struct{})
				stalled := newFlood(reads, stalls, enough)
				settle(t, &stalled.accepted)
				for i := range 100 {
					text := fmt.Sprint("message ", i)
					stalls.send(t, text)
					reads.want(t, text)
				}
				if err := stalls.closeWrite(); err != nil {
					t.Fatal(err)
				}
				reads.wantEnd(t, "", clean)
				close(enough)
				if wrong := stalled.read(); wrong != "" {
					t.Error(wrong)
				}
				if err := <-stalled.ended; err != nil {
					t.Error(err)
				}
			})
		}
	}
}
