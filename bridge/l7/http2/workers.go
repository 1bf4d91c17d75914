package http2

import "sync"

// maxWaiting bounds the idle goroutines that a connection keeps for its next
// streams.
const maxWaiting = 32

// A workerPool runs the handlers of a connection's streams. A worker that has
// served a stream waits for the next: its stack has already grown, and growing
// one is much of the cost of a small exchange. Workers without a stream for a
// while end. So does the first one at once, because many clients send only one
// request. It is guarded by the connection's mu.
type workerPool struct {
	streams  []*ServerStream // assigned, but not yet taken by a waiting worker
	waiting  int             // idle workers
	wanted   sync.Cond       // streams are assigned, or workers must end
	released int             // waiting workers that must end
	busy     bool            // a stream was assigned since the last tick
}

// assign passes a stream to a worker.
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

// work serves s, and then other streams.
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

// nextStream waits for a stream to serve. It returns nil if the worker must
// end.
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

// releaseLocked ends the workers that got no stream since the last call.
func (w *workerPool) releaseLocked() {
	if !w.busy && w.waiting > 0 {
		w.released = w.waiting
		w.wanted.Broadcast()
	}
	w.busy = false
}
