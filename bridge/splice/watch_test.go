package splice

import (
	"testing"
	"testing/synctest"
	"time"
)

// watched returns a watch, in a bubble of its own time, and a channel that says
// what it cuts.
func watched(t *testing.T, idle, linger time.Duration) (*watch, chan Ending) {
	cut := make(chan Ending, 1)
	w := &watch{idle: idle, linger: linger, cut: func(how Ending) { cut <- how }}
	w.start()
	t.Cleanup(w.stop)
	return w, cut
}

// cutWithin checks that it cuts between limit and a little later, and as what.
func cutWithin(t *testing.T, cut chan Ending, limit time.Duration, how Ending) {
	t.Helper()
	begin := time.Now()
	got := <-cut
	if passed := time.Since(begin); passed < limit || passed > limit+limit/looks {
		t.Errorf("cut after %v, want about %v", passed, limit)
	}
	if got != how {
		t.Errorf("called %q, want %q", got, how)
	}
}

func TestWatchCutsTheIdle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, cut := watched(t, time.Hour, time.Minute)
		for range 100 { // a byte in either direction now and then
			time.Sleep(40 * time.Minute)
			w.toClient.moved()
			time.Sleep(40 * time.Minute)
			w.toUpstream.moved()
		}
		time.Sleep(time.Hour / looks) // it looked and saw the last
		cutWithin(t, cut, 52*time.Minute, Idle)
	})
}

func TestWatchCutsAStalledWriteOfABusyConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, cut := watched(t, time.Hour, time.Minute)
		w.toClient.began() // something waits to be sent, for ever
		stop := make(chan struct{})
		go func() {
			for {
				select {
				case <-stop:
					return
				case <-time.After(time.Second):
					w.toUpstream.moved()
				}
			}
		}()
		cutWithin(t, cut, time.Hour, Idle)
		close(stop)
	})
}

func TestWatchLingersAfterAHalfClose(t *testing.T) {
	t.Run("only so long in silence", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			w, cut := watched(t, time.Hour, time.Minute)
			time.Sleep(50 * time.Minute) // which do not count against it
			w.startLinger()
			cutWithin(t, cut, time.Minute, Linger)
		})
	})
	t.Run("renewed by each byte", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			w, cut := watched(t, time.Hour, time.Minute)
			w.startLinger()
			for range 100 {
				time.Sleep(50 * time.Second)
				w.toClient.moved()
			}
			time.Sleep(time.Minute / looks)
			cutWithin(t, cut, 52*time.Second, Linger)
		})
	})
	t.Run("but a slow reader has the idle time", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			w, cut := watched(t, time.Hour, time.Minute)
			w.toClient.began()
			w.startLinger()
			cutWithin(t, cut, time.Hour, Idle)
		})
	})
	t.Run("and never longer than idle", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) { // as the gateway passes it on
			w, cut := watched(t, time.Minute, min(time.Hour, time.Minute))
			w.startLinger()
			cutWithin(t, cut, time.Minute, Idle)
		})
	})
}

func TestWatchStops(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, cut := watched(t, time.Minute, time.Minute)
		w.startLinger()
		w.stop()
		time.Sleep(24 * time.Hour)
		select {
		case <-cut:
			t.Error("cut")
		default:
		}
	})
}
