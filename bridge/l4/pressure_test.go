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

// A flood is one side writing for as long as it is let, and what the other side
// reads of it.
type flood struct {
	from, to *peer
	accepted atomic.Int64  // bytes that writing has taken
	enough   chan struct{} // closed: the stream is to be ended
	ended    chan error    // what writing ended with
}

// stretch is written over and over. Its length has no divisor in common with
// that of any buffer, so bytes that go missing, or come twice, are noticed.
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

// read reads to the end and says what is wrong with what came; "" if nothing is.
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

// settle waits until none of the counts has changed for a while. Nothing tells
// when every buffer on the way is full; if that takes a while longer than this
// waits, less is asked of the gate, never more.
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
	runtime.GC() // what sync.Pools hold goes with the second
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// Where nobody reads, writing stops after what the kernel's buffers take, and the
// gate holds little; when reading goes on, so does all else, with every byte.
func TestAStalledReaderStopsTheWriter(t *testing.T) {
	const (
		conns    = 4
		mostHeap = 512 << 10 // per direction, of the gate and of the test's own peers
		// The buffers of two sockets on each side of the gate. What Linux makes
		// of them differs; some 8 MiB are common.
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
			// What is held while bytes move is more, and on a slow machine some
			// may yet.
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
					t.Errorf("%d MiB were taken that nobody read", n>>20)
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

// One direction that is stalled does not hold up the other.
func TestAStalledDirectionLeavesTheOtherAlone(t *testing.T) {
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
