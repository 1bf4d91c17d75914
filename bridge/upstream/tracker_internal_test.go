package upstream

import (
	"net"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/drawbridge-gateway/drawbridge/bridge/live"
	"github.com/drawbridge-gateway/drawbridge/bridge/socket"
)

// A retirer is a Holder of an idle connection.
type retirer func()

func (r retirer) Retire()           { r() }
func (r retirer) Work() (int, bool) { return 0, true }

func (r retirer) Protocol() live.Protocol { return live.HTTP1 }

// connection adds a connection to t and returns whether it is open.
func (t *Tracker) connection(fingerprint string, h Holder) (c *tracked, isOpen func() bool) {
	near, far := net.Pipe()
	var closed atomic.Bool
	c = &tracked{fingerprint: fingerprint, holder: h}
	c.sock = socket.New(near, func() { t.remove(c); far.Close(); closed.Store(true) })
	t.add(c)
	return c, func() bool { synctest.Wait(); return !closed.Load() }
}

func TestDrainClosesOpenConnectionsWhenThePeriodEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tracker := NewTracker()
		retired, others := 0, 0
		_, idle := tracker.connection("a", retirer(func() { retired++ }))
		busy, busyOpen := tracker.connection("a", nil)
		_, other := tracker.connection("b", retirer(func() { others++ }))
		_, none := tracker.connection("", nil)

		if n := tracker.Drain("a", false, time.Minute); n != 2 || retired != 1 || others != 0 {
			t.Fatalf("drains %d, notified %d and %d others", n, retired, others)
		}
		_, late := tracker.connection("a", nil) // a later connection, which Drain does not affect
		time.Sleep(time.Minute - time.Second)
		if !idle() || !busyOpen() {
			t.Error("cut before its time")
		}
		busy.sock.Close() // a closed connection need not be cut
		if busy.cut.Stop() {
			t.Error("the timer of a connection that is closed still runs")
		}
		time.Sleep(time.Second)
		if idle() || !other() || !none() || !late() {
			t.Errorf("after the period: drained %v; untouched %v %v %v", idle(), other(), none(), late())
		}
		if n := tracker.Drain("", false, 0); n != 1 || none() || !other() {
			t.Errorf("without a certificate: %d, open %v, other %v", n, none(), other())
		}
		if n := tracker.Drain("", true, 0); n != 2 || other() || late() {
			t.Errorf("all: %d, open %v %v", n, other(), late())
		}
		if counts := tracker.Counts(); len(counts) != 0 || len(tracker.open) != 0 {
			t.Errorf("left: %v", counts)
		}
	})
}

func TestASecondDrainKeepsTheEarlierDeadline(t *testing.T) {
	for _, periods := range [][]time.Duration{{time.Minute, time.Hour}, {time.Hour, time.Minute}, {time.Minute, time.Minute}} {
		synctest.Test(t, func(t *testing.T) {
			tracker := NewTracker()
			_, open := tracker.connection("a", nil)
			for _, p := range periods {
				tracker.Drain("a", false, p)
			}
			time.Sleep(time.Minute - 1)
			before := open()
			time.Sleep(time.Nanosecond)
			if after := open(); !before || after {
				t.Errorf("%v: open %v, then %v", periods, before, after)
			}
		})
	}
}
