package http2

import "sync"

// maxWaiting bounds the idle goroutines that a connection keeps for its next
// tasks.
const maxWaiting = 32

// A task is a piece of work for a worker: to serve a new stream, or to continue reading
// the body of a stream.
type task struct {
	stream *ServerStream
	resume func() // see AwaitBody; nil: serve the stream
}

// A workerPool runs the handlers of a connection's streams, and resumes those that
// waited for a body. A worker that has done a task waits for the next: its stack has
// already grown, and growing a stack is much of the cost of a small exchange, or of a
// message in a long body. A worker without a task for a while ends. The worker of the
// first stream ends at once, because many clients send only one request. It is guarded
// by the connection's mu.
type workerPool struct {
	tasks    []task    // assigned, but not yet taken by a waiting worker
	waiting  int       // idle workers
	wanted   sync.Cond // tasks are assigned, or workers must end
	released int       // waiting workers that must end
	busy     bool      // a task was assigned since the last tick
}

// assign passes a task to a worker.
func (c *ServerConn) assign(t task) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.assignLocked(t)
}

func (c *ServerConn) assignLocked(t task) {
	w := &c.workerPool
	w.busy, w.released = true, 0
	if w.waiting > len(w.tasks) {
		w.tasks = append(w.tasks, t)
		w.wanted.Signal()
		return
	}
	c.workers.Add(1)
	go c.work(t)
}

// work does t, and then other tasks.
func (c *ServerConn) work(t task) {
	defer c.workers.Done()
	defer func() {
		if p := recover(); p != nil {
			c.panicked(p)
		}
	}()
	for t.stream != nil {
		if t.resume != nil {
			t.resume()
		} else {
			c.handle(t.stream)
		}
		t = c.nextTask(t.resume != nil)
	}
}

// nextTask waits for a task, and returns the zero task if the worker must end. resumed
// says that the worker's last task resumed a stream.
func (c *ServerConn) nextTask(resumed bool) task {
	c.mu.Lock()
	defer c.mu.Unlock()
	w := &c.workerPool
	for len(w.tasks) == 0 {
		if c.err != nil || w.waiting >= maxWaiting || c.taken < 2 && !resumed {
			return task{}
		}
		w.waiting++
		w.wanted.Wait()
		w.waiting--
		if len(w.tasks) == 0 && w.released > 0 {
			w.released--
			return task{}
		}
	}
	t := w.tasks[0]
	n := copy(w.tasks, w.tasks[1:])
	w.tasks[n] = task{}
	w.tasks = w.tasks[:n]
	return t
}

// releaseLocked ends the workers that got no task since the last call.
func (w *workerPool) releaseLocked() {
	if !w.busy && w.waiting > 0 {
		w.released = w.waiting
		w.wanted.Broadcast()
	}
	w.busy = false
}
