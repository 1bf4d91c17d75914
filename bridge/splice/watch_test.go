package splice

import (
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// A watched is a watch under synctest's clock.
type watched struct {
	*watch
	mu               sync.Mutex // like Splice.mu
	began            time.Time
	upstream, client int // bytes not acknowledged
	cut              chan Ending
}

func watching(t *testing.T, idle, linger time.Duration) *watched {
	w := &watched{watch: &watch{idle: idle, linger: linger}, began: time.Now(), cut: make(chan Ending, 1)}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.start(0, func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		if ending := w.expired(w.now(), w.upstream, w.client); ending != "" {
			w.stop()
			w.cut <- ending
		}
	})
	t.Cleanup(w.end)
	return w
}

func (w *watched) end() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.stop()
}

func (w *watched) lingers() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.startLinger(w.now())
}

// holds sets the number of bytes that the client has not acknowledged.
func (w *watched) holds(n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.client = n
}

func (w *watched) now() time.Duration { return time.Since(w.began) }

func (w *watched) moved(p *progress) {
	w.mu.Lock()
	defer w.mu.Unlock()
	p.last = w.now()
}

// waits marks a direction as queued from now on.
func (w *watched) waits(p *progress) {
	w.mu.Lock()
	defer w.mu.Unlock()
	p.last, p.queued = w.now(), true
}

// cutsWithin checks that the watch cuts at limit, or at most 5% later, and the Ending.
func (w *watched) cutsWithin(t *testing.T, limit time.Duration, ending Ending) {
	t.Helper()
	begin := time.Now()
	got := <-w.cut
	if passed := time.Since(begin); passed < limit || passed > limit+limit/20 {
		t.Errorf("cut after %v, want %v", passed, limit)
	}
	if got != ending {
		t.Errorf("called %q, want %q", got, ending)
	}
}

func TestWatchCutsIdleSplices(t *testing.T) {
	for _, pause := range []time.Duration{time.Second, time.Minute, 17 * time.Minute, 40 * time.Minute, 59 * time.Minute} {
		synctest.Test(t, func(t *testing.T) {
			w := watching(t, time.Hour, time.Minute)
			for range 100 { // a byte moves in either direction now and then
				time.Sleep(pause)
				w.moved(&w.toClient)
				time.Sleep(pause)
				w.moved(&w.toUpstream)
			}
			w.cutsWithin(t, time.Hour, Idle)
		})
	}
}

func TestWatchCutsAStalledWriteOfABusyConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := watching(t, time.Hour, time.Minute)
		w.waits(&w.toClient) // the direction never moves again
		stop := make(chan struct{})
		go func() {
			for {
				select {
				case <-stop:
					return
				case <-time.After(time.Second):
					w.moved(&w.toUpstream)
				}
			}
		}()
		w.cutsWithin(t, time.Hour, Idle)
		close(stop)
	})
}

// An acknowledgment of bytes that the kernel holds is progress too.
func TestWatchCountsAcknowledgedBytes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := watching(t, time.Hour, time.Minute)
		w.moved(&w.toClient)
		for n := 100; n > 40; n-- {
			w.holds(n)
			time.Sleep(20 * time.Minute)
		}
		w.holds(40)
		w.cutsWithin(t, time.Hour, Idle)
	})
	synctest.Test(t, func(t *testing.T) { // but a larger number of unacknowledged bytes is not
		w := watching(t, time.Hour, time.Minute)
		time.Sleep(30 * time.Minute)
		w.holds(100)
		w.moved(&w.toClient)
		w.cutsWithin(t, time.Hour, Idle)
	})
	synctest.Test(t, func(t *testing.T) {
		w := watching(t, time.Hour, time.Minute)
		w.holds(100)
		w.lingers()
		for n := range 50 {
			time.Sleep(20 * time.Second)
			w.holds(99 - n)
		}
		w.cutsWithin(t, time.Minute, Linger)
	})
}

func TestWatchLingersAfterAHalfClose(t *testing.T) {
	t.Run("only for a limited time without progress", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			w := watching(t, time.Hour, time.Minute)
			time.Sleep(50 * time.Minute) // this time does not count against linger
			w.lingers()
			w.cutsWithin(t, time.Minute, Linger)
		})
	})
	t.Run("renewed by each byte", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			w := watching(t, time.Hour, time.Minute)
			w.lingers()
			for range 100 {
				time.Sleep(50 * time.Second)
				w.moved(&w.toClient)
			}
			w.cutsWithin(t, time.Minute, Linger)
		})
	})
	t.Run("a slow reader gets the idle timeout", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			w := watching(t, time.Hour, time.Minute)
			w.lingers()
			w.waits(&w.toClient)
			w.cutsWithin(t, time.Hour, Idle)
		})
	})
	t.Run("never longer than the idle timeout", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) { // the clock starts like in Start
			w := watching(t, time.Minute, min(time.Hour, time.Minute))
			w.lingers()
			w.cutsWithin(t, time.Minute, Idle)
		})
	})
}

func TestWatchStops(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := watching(t, time.Minute, time.Minute)
		w.lingers()
		w.end()
		time.Sleep(24 * time.Hour)
		select {
		case <-w.cut:
			t.Error("cut")
		default:
		}
	})
}

// A closing splice waits as long as its receiver makes progress.
func TestWatchGivesUpWithoutProgress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := watching(t, time.Hour, time.Minute)
		w.end() // the timer does not run
		w.closing, w.closingSince = true, w.now()
		for n := 10; n > 0; n-- {
			w.toClient.acknowledged(w.now(), n)
			time.Sleep(50 * time.Second)
			if w.stuck(&w.toClient, w.now()) {
				t.Fatal("stuck although the receiver makes progress")
			}
		}
		time.Sleep(10 * time.Second)
		if !w.stuck(&w.toClient, w.now()) {
			t.Error("not stuck although the receiver accepts nothing")
		}
	})
}
