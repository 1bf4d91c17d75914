package gateway

import (
	"sync"
	"testing"

	"github.com/drawbridge-gateway/drawbridge/gateway/store"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

// followed returns a channel with the items after a position. The channel is
// closed when the feed ends. stop ends it earlier.
func followed[T any](t *testing.T, position int64, after func(int64) ([]T, <-chan struct{}, error), place func(T) int64) (values <-chan T, stop func()) {
	out, done := make(chan T), make(chan struct{})
	var following sync.WaitGroup
	following.Go(func() {
		defer close(out)
		for {
			some, changed, err := after(position)
			if err != nil {
				return
			}
			for _, v := range some {
				select {
				case out <- v:
					position = place(v)
				case <-done:
					return
				}
			}
			if changed != nil {
				select {
				case <-changed:
				case <-done:
					return
				}
			}
		}
	})
	stop = sync.OnceFunc(func() { close(done); following.Wait() })
	t.Cleanup(stop)
	return out, stop
}

// WatchEvents returns the events from now on.
func (g *testGateway) WatchEvents() (<-chan *adminv1.Event, func()) {
	_, last := g.EventBounds()
	return followed(g.t, last, g.Events, (*adminv1.Event).GetSequence)
}

// Watch returns the state and the updates from now on.
func (g *testGateway) Watch() (*store.State, <-chan store.Update, func()) {
	now := g.State()
	updates, stop := followed(g.t, now.Revision(), g.Updates, func(u store.Update) int64 { return u.Revision })
	return now, updates, stop
}

// UpstreamStatuses returns the status of every upstream.
func (g *testGateway) UpstreamStatuses() []*adminv1.UpstreamStatus {
	var out []*adminv1.UpstreamStatus
	for _, r := range g.State().List(adminv1.Kind_KIND_UPSTREAM) {
		out = append(out, g.UpstreamStatus(r.GetName()))
	}
	return out
}
