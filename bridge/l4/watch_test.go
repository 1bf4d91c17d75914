package l4

import (
	"net"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/drawbridge-gateway/drawbridge/bridge/socket"
)

// watched returns a splice that is only watched, in a bubble of its own time,
// and a channel that is closed when it is cut.
func watched(t *testing.T, idle, linger time.Duration) (*splice, chan struct{}) {
	var n atomic.Uint64
	cut := make(chan struct{})
	client, _ := net.Pipe()
	upstream, _ := net.Pipe()
	s := newSplice(socket.New(client, func() { close(cut) }), socket.New(upstream, nil), new(socket.Pool), idle, linger, &n, &n)
	s.startWatch()
	t.Cleanup(s.stopWatch)
	return s, cut
}

// cutWithin checks that the splice is cut between limit and a little later,
// and as what.
func cutWithin(t *testing.T, s *splice, cut chan struct{}, limit time.Duration, how ending) {
	t.Helper()
	begin := time.Now()
	<-cut
	synctest.Wait()
	if passed := time.Since(begin); passed < limit || passed > limit+limit/looks {
		t.Errorf("cut after %v, want about %v", passed, limit)
	}
	if s.how != how {
		t.Errorf("called %q, want %q", s.how, how)
	}
}

func TestWatchCutsTheIdle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, cut := watched(t, time.Hour, time.Minute)
		for range 100 { // a byte in either direction now and then
			time.Sleep(40 * time.Minute)
			s.toClient.activity.Add(2)
			time.Sleep(40 * time.Minute)
			s.toUpstream.activity.Add(2)
		}
		time.Sleep(time.Hour / looks) // it looked and saw the last
		cutWithin(t, s, cut, 52*time.Minute, endIdle)
	})
}

func TestWatchCutsAStalledWriteOfABusyConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, cut := watched(t, time.Hour, time.Minute)
		s.toClient.activity.Add(1) // a write begins, and never ends
		stop := make(chan struct{})
		go func() {
			for {
				select {
				case <-stop:
					return
				case <-time.After(time.Second):
					s.toUpstream.activity.Add(2)
				}
			}
		}()
		cutWithin(t, s, cut, time.Hour, endIdle)
		close(stop)
	})
}

func TestWatchLingersAfterAHalfClose(t *testing.T) {
	t.Run("only so long in silence", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s, cut := watched(t, time.Hour, time.Minute)
			time.Sleep(50 * time.Minute) // which do not count against it
			s.startLinger()
			cutWithin(t, s, cut, time.Minute, endLinger)
		})
	})
	t.Run("renewed by each byte", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s, cut := watched(t, time.Hour, time.Minute)
			s.startLinger()
			for range 100 {
				time.Sleep(50 * time.Second)
				s.toClient.activity.Add(2)
			}
			time.Sleep(time.Minute / looks)
			cutWithin(t, s, cut, 52*time.Second, endLinger)
		})
	})
	t.Run("but a slow reader has the idle time", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s, cut := watched(t, time.Hour, time.Minute)
			s.toClient.activity.Add(1)
			s.startLinger()
			cutWithin(t, s, cut, time.Hour, endIdle)
		})
	})
	t.Run("and never longer than idle", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s, cut := watched(t, time.Minute, time.Hour)
			s.startLinger()
			cutWithin(t, s, cut, time.Minute, endIdle)
		})
	})
}

func TestWatchStops(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, cut := watched(t, time.Minute, time.Minute)
		s.startLinger()
		s.stopWatch()
		time.Sleep(24 * time.Hour)
		select {
		case <-cut:
			t.Error("cut")
		default:
		}
	})
}

func TestTableDefaults(t *testing.T) {
	var zero Table
	if zero.handshakeTimeout() != 10*time.Second || zero.idleTimeout() != time.Hour || zero.linger() != time.Minute {
		t.Errorf("%v, %v, %v", zero.handshakeTimeout(), zero.idleTimeout(), zero.linger())
	}
}
