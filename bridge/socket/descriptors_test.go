package socket_test

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/drawbridge-gateway/drawbridge/bridge/socket"
)

// fill accepts clients, each with its upstream connection, until there is no room.
func fill(d *socket.Descriptors, upstreams bool) int {
	n := 0
	for ; d.Room(); n++ {
		d.AddClients(1)
		if upstreams && d.TakeUpstream(context.Background()) != nil {
			return -1
		}
	}
	return n
}

func TestTrafficDoesNotUseReservedDescriptors(t *testing.T) {
	for _, test := range []struct{ limit, others, clients int }{
		{100, 20, 24},         // 32 are reserved
		{1024, 24, 468},       // 64
		{1 << 20, 24, 523764}, // 1024
		{20, 18, 2},           // the minimum
	} {
		for _, upstreams := range []bool{true, false} { // with and without upstream connections
			d := socket.NewDescriptors(func() int { return test.limit })
			d.SetOthers(test.others)
			if n := fill(d, upstreams); n != test.clients {
				t.Errorf("limit %d, %d others, upstreams %v: %d clients were admitted, want %d", test.limit, test.others, upstreams, n, test.clients)
			}
			d.AddClients(-1)
			if d.ReleaseUpstream(); !d.Room() {
				t.Error("no room after one client has left")
			}
		}
	}
}

func TestUnknownLimitSetsNoBound(t *testing.T) {
	var none *socket.Descriptors
	for _, d := range []*socket.Descriptors{none, socket.NewDescriptors(func() int { return 0 })} {
		d.AddClients(1 << 30)
		if !d.Room() || d.TakeUpstream(t.Context()) != nil {
			t.Error("bounded")
		}
		d.ReleaseUpstream()
	}
}

func TestRaisedLimitIsNoticed(t *testing.T) {
	var limit atomic.Int64
	limit.Store(100)
	d := socket.NewDescriptors(func() int { return int(limit.Load()) })
	few := fill(d, true)
	limit.Store(1000)
	if more := fill(d, true); few+more < 400 {
		t.Errorf("%d, and %d more", few, more)
	}
	if all, _, _ := d.Usage(); all != 1000 {
		t.Errorf("Usage returns the limit %d", all)
	}
}

// Upstream connections beyond the number of clients wait, and never use the last
// reserve.
func TestUpstreamConnectionWaitsForADescriptor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := socket.NewDescriptors(func() int { return 100 })
		d.AddClients(10)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		n := 0
		for d.TakeUpstream(ctx) == nil {
			n++
		}
		if n != 74 || ctx.Err() == nil {
			t.Errorf("took %d", n)
		}
		if err := d.TakeUpstream(ctx); !socket.OutOfDescriptors(err) {
			t.Errorf("TakeUpstream without a free descriptor: %v", err)
		}
		if d.Room() {
			t.Error("a client without a descriptor for its upstream is admitted")
		}
		taken := make(chan error)
		go func() { taken <- d.TakeUpstream(t.Context()) }()
		time.Sleep(time.Hour)
		d.ReleaseUpstream()
		if err := <-taken; err != nil {
			t.Error(err)
		}
		if _, clients, upstreams := d.Usage(); clients != 10 || upstreams != 74 {
			t.Errorf("%d clients, %d upstreams", clients, upstreams)
		}
	})
}

func TestDescriptorsAreNeverReservedTwice(t *testing.T) {
	d := socket.NewDescriptors(func() int { return 100 })
	var most, now atomic.Int64
	var all sync.WaitGroup
	for range 200 {
		all.Go(func() {
			if err := d.TakeUpstream(t.Context()); err != nil {
				t.Error(err)
				return
			}
			n := now.Add(1)
			for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
			}
			time.Sleep(time.Millisecond)
			now.Add(-1)
			d.ReleaseUpstream()
		})
	}
	all.Wait()
	if most.Load() > 84 {
		t.Errorf("%d at once", most.Load())
	}
}

func TestRetryDescriptorsWaitsOnlyForDescriptors(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		other := errors.New("other")
		for _, test := range []struct {
			errs []error
			want error
			n    int
		}{
			{[]error{syscall.EMFILE, syscall.ENFILE, nil}, nil, 3},
			{[]error{syscall.EMFILE, other}, other, 2},
			{[]error{other}, other, 1},
		} {
			n := 0
			v, err := socket.RetryDescriptors(t.Context(), func() (int, error) { n++; return n, test.errs[n-1] })
			if err != test.want || n != test.n || v != n {
				t.Errorf("%v: %d, %v after %d", test.errs, v, err, n)
			}
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := socket.RetryDescriptors(ctx, func() (int, error) { return 0, syscall.EMFILE }); err != syscall.EMFILE {
			t.Errorf("forever: %v", err)
		}
	})
}
