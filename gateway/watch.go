package gateway

import (
	"sync"

	"github.com/drawbridge-gateway/drawbridge/gateway/store"
)

// watchBuffer is how many updates a watcher may be behind before it is ended.
const watchBuffer = 256

// A broadcast hands each value to everyone who watches. A slow watcher is ended
// rather than waited for: what happens must not depend on who reads of it. The
// zero value is ready; its methods may be called concurrently.
type broadcast[T any] struct {
	mu     sync.Mutex
	all    map[chan T]struct{}
	closed bool
}

// announce hands on a value. It never blocks.
func (b *broadcast[T]) announce(v T) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for c := range b.all {
		select {
		case c <- v:
		default:
			delete(b.all, c)
			close(c)
		}
	}
}

func (b *broadcast[T]) add() chan T {
	c := make(chan T, watchBuffer)
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		close(c)
		return c
	}
	if b.all == nil {
		b.all = map[chan T]struct{}{}
	}
	b.all[c] = struct{}{}
	return c
}

func (b *broadcast[T]) remove(c chan T) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.all, c)
}

// close ends every watcher, and those to come.
func (b *broadcast[T]) close() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.closed = true
	for c := range b.all {
		close(c)
	}
	b.all = nil
}

// Watch returns the live state and a channel of every update after it, in
// order. The channel is closed when its reader is too slow and when the gateway
// stops. The caller must call stop when it is done.
func (g *Gateway) Watch() (now *store.State, updates <-chan store.Update, stop func()) {
	// Under the writer's lock no update falls between the state and the channel.
	g.writer.Lock()
	defer g.writer.Unlock()
	c := g.updates.add()
	return g.live.Load().State(), c, func() { g.updates.remove(c) }
}
