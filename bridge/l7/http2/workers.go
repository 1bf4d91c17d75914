package http2

import "sync"

// maxParked bounds how many goroutines a connection keeps for its next streams.
const maxParked = 32

// A crew are the goroutines that serve a connection's streams. One that has
// served a stream waits for the next: its stack has grown to what an exchange
// needs, and growing one is a good part of what a small exchange costs. Those
// that nothing comes for are let go, and the first one at once: many clients have
// one request. All of it is guarded by the connection's mu.
type crew struct {
	streams []*ServerStream // that are yet to be served, each by one of the parked
	parked  int
	wanted  sync.Cond // there are streams, or some are let go
	leaving int       // how many of the parked are let go
	busy    bool      // a stream was begun since the last tick
}

// assign has a stream served.
func (c *ServerConn) assign(s *ServerStream) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.crew.busy, c.crew.leaving = true, 0
	if c.crew.parked > len(c.crew.streams) {
		c.crew.streams = append(c.crew.streams, s)
		c.crew.wanted.Signal()
		return
	}
	c.workers.Add(1)
	go c.work(s)
}

// work serves s, and then others.
func (c *ServerConn) work(s *ServerStream) {
	defer c.workers.Done()
	for s != nil {
		c.handle(s)
		s = c.nextStream()
	}
}

// nextStream waits for a stream to serve; nil: there will be none for a while.
func (c *ServerConn) nextStream() *ServerStream {
	c.mu.Lock()
	defer c.mu.Unlock()
	w := &c.crew
	for len(w.streams) == 0 {
		if c.err != nil || w.parked >= maxParked || c.taken < 2 {
			return nil
		}
		w.parked++
		w.wanted.Wait()
		w.parked--
		if len(w.streams) == 0 && w.leaving > 0 {
			w.leaving--
			return nil
		}
	}
	s := w.streams[0]
	n := copy(w.streams, w.streams[1:])
	w.streams[n] = nil
	w.streams = w.streams[:n]
	return s
}

// dismissLocked lets those go that nothing came for since it was called last.
func (w *crew) dismissLocked() {
	if !w.busy && w.parked > 0 {
		w.leaving = w.parked
		w.wanted.Broadcast()
	}
	w.busy = false
}
