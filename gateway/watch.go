package gateway

import (
	"sync"

	"github.com/drawbridge-gateway/drawbridge/gateway/store"
)

// watchBuffer is how many updates a watcher may be behind before it is ended.
const watchBuffer = 256

// watchers hands each update to everyone who watches. A slow watcher is ended
// rather than waited for: a write must not depend on who reads of it.
type watchers struct {
	mu     sync.Mutex
	all    map[chan store.Update]struct{}
	closed bool
}

// announce hands on an update. It never blocks.
func (w *watchers) announce(u store.Update) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for c := range w.all {
		select {
		case c <- u:
		default:
			delete(w.all, c)
			close(c)
		}
	}
}

func (w *watchers) add() chan store.Update {
	c := make(chan store.Update, watchBuffer)
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		close(c)
		return c
	}
	if w.all == nil {
		w.all = map[chan store.Update]struct{}{}
	}
	w.all[c] = struct{}{}
	return c
}

func (w *watchers) remove(c chan store.Update) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.all, c)
}

// close ends every watcher, and those to come.
func (w *watchers) close() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.closed = true
	for c := range w.all {
		close(c)
	}
	w.all = nil
}

// Watch returns the live state and a channel of every update after it, in
// order. The channel is closed when its reader is too slow and when the gateway
// stops. The caller must call stop when it is done.
func (g *Gateway) Watch() (now *store.State, updates <-chan store.Update, stop func()) {
	// Under the writer's lock no update falls between the state and the channel.
	g.writer.Lock()
	defer g.writer.Unlock()
	c := g.watchers.add()
	return g.live.Load().State(), c, func() { g.watchers.remove(c) }
}
