package http2

import "sync"

// maxWaiting bounds how many goroutines a connection keeps for its next streams.
const maxWaiting = 32

// A workerPool has the goroutines that serve a connection's streams. One that has
// served a stream waits for the next: its stack has grown to what an exchange
// needs, and growing one is a good part of what a small exchange costs. Those
// that get no stream for a while end, and the first one at once: many clients send
// one request. All of it is guarded by the connection's mu.
type workerPool struct {
	streams  []*ServerStream // to be served, each by one of the waiting
	waiting  int
	wanted   sync.Cond // there are streams, or some of the waiting are to end
	released int       // how many of the waiting are to end
	busy     bool      // a stream was begun since the last tick
}

// assign has a stream served.
func (c *ServerConn) assign(s *ServerStream) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.workerPool.busy, c.workerPool.released = true, 0
	if c.workerPool.waiting > len(c.workerPool.streams) {
		c.workerPool.streams = append(c.workerPool.streams, s)
		c.workerPool.wanted.Signal()
		return
	}
	c.workers.Add(1)
	go c.work(s)
}

// work serves s, and then others.
func (c *ServerConn) work(s *ServerStream) {
	defer c.workers.Done()
	defer func() {
		if p := recover(); p != nil {
			c.panicked(p)
		}
	}()
	for s != nil {
		c.handle(s)
		s = c.nextStream()
	}
}

// nextStream waits for a stream to serve; nil: there will be none for a while.
func (c *ServerConn) nextStream() *ServerStream {
	c.mu.Lock()
	defer c.mu.Unlock()
	w := &c.workerPool
	for len(w.streams) == 0 {
		if c.err != nil || w.waiting >= maxWaiting || c.taken < 2 {
			return nil
		}
		w.waiting++
		w.wanted.Wait()
		w.waiting--
		if len(w.streams) == 0 && w.released > 0 {
			w.released--
			return nil
		}
	}
	s := w.streams[0]
	n := copy(w.streams, w.streams[1:])
	w.streams[n] = nil
	w.streams = w.streams[:n]
	return s
}

// releaseLocked ends the goroutines that got no stream since it was called last.
func (w *workerPool) releaseLocked() {
	if !w.busy && w.waiting > 0 {
		w.released = w.waiting
		w.wanted.Broadcast()
	}
	w.busy = false
}
