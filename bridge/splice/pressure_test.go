package splice_test

import (
	"crypto/tls"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/drawbridge-gateway/drawbridge/bridge/splice"
	"github.com/drawbridge-gateway/drawbridge/bridge/splice/splicetest"
	"github.com/drawbridge-gateway/drawbridge/certs/certstest"
)

// If the reader stalls, the writer stops once the kernel's buffers are full, and the
// gate holds little. When the reader resumes, every byte arrives.
func TestStalledReaderStopsTheWriter(t *testing.T) {
	const (
		conns    = 4
		mostHeap = 512 << 10 // memory of the gate and of the test's peers, per direction
		// The buffers of two sockets on each side of the gate. Linux sizes them
		// differently; about 8 MiB is common.
		mostAccepted = 64 << 20
	)
	ca := certstest.NewCA(t)
	for _, c := range []combination{
		{"tcp", "tcp", 0, 0}, {"tcp", "tcp", tls.VersionTLS13, tls.VersionTLS13},
		{"tcp", "unix", tls.VersionTLS12, 0}, {"unix", "tcp", 0, tls.VersionTLS13},
	} {
		t.Run(c.String(), func(t *testing.T) {
			e := engineOf(t, "loops")
			before := splicetest.Heap()
			var floods []*splicetest.Flood
			var counts []*atomic.Int64
			enough := make(chan struct{})
			for range conns {
				b := c.connect(t, e, ca, splice.Options{})
				for _, f := range []*splicetest.Flood{splicetest.NewFlood(b.client, b.upstream, enough), splicetest.NewFlood(b.upstream, b.client, enough)} {
					floods, counts = append(floods, f), append(counts, &f.Accepted)
				}
			}
			splicetest.Settle(t, counts...)
			// Moving bytes need more memory, and on a slow machine some may still move.
			var grown int64
			defer func() {
				if t.Failed() {
					t.Logf("%d KiB are held for each stalled direction", grown>>10/int64(len(floods)))
				}
			}()
			eventually(t, "the gate holds little memory", func() bool {
				grown = splicetest.Heap() - before
				return grown <= mostHeap*int64(len(floods))
			})
			for _, f := range floods {
				if n := f.Accepted.Load(); n > mostAccepted {
					t.Errorf("%d MiB were accepted that the reader did not read", n>>20)
				}
			}
			close(enough)
			var readers sync.WaitGroup
			for _, f := range floods {
				readers.Go(func() {
					if wrong := f.Read(); wrong != "" {
						t.Error(wrong)
					}
				})
			}
			readers.Wait()
			for _, f := range floods {
				if err := <-f.Ended; err != nil {
					t.Error(err)
				}
			}
		})
	}
}

// A stalled direction does not block the other.
func TestStalledDirectionDoesNotBlockTheOther(t *testing.T) {
	ca := certstest.NewCA(t)
	for _, version := range []uint16{0, tls.VersionTLS12, tls.VersionTLS13} {
		for side := range 2 {
			c := combination{"tcp", "tcp", version, version}
			t.Run(fmt.Sprintf("%v, side %d reads", c, side), func(t *testing.T) {
				t.Parallel()
				b := c.connect(t, engineOf(t, "loops"), ca, splice.Options{})
				stalls, reads := b.client, b.upstream
				if side == 0 {
					stalls, reads = reads, stalls
				}
				enough := make(chan struct{})
				stalled := splicetest.NewFlood(reads, stalls, enough)
				splicetest.Settle(t, &stalled.Accepted)
				for i := range 100 {
					text := fmt.Sprint("message ", i)
					stalls.Send(t, text)
					reads.Want(t, text)
				}
				if err := stalls.CloseWrite(); err != nil {
					t.Fatal(err)
				}
				reads.WantEnd(t, "", clean)
				close(enough)
				if wrong := stalled.Read(); wrong != "" {
					t.Error(wrong)
				}
				if err := <-stalled.Ended; err != nil {
					t.Error(err)
				}
			})
		}
	}
}
