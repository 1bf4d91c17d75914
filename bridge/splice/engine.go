package splice

import (
	"net"
	"sync"
	"time"
)

// An Engine runs splices. New starts it; its owner closes it after all splices have
// ended. All methods may be called concurrently.
type Engine struct {
	began   time.Time // time zero of the Engine's clock
	loops   []*loop   // empty without epoll: goroutines wait instead
	buffers buffers

	// Workspaces of bulk connections and of all others.
	large, small sync.Pool

	waiting sync.WaitGroup // goroutines that wait for descriptors
}

// New returns an Engine with the given number of loops; 0 means one per processor.
// Without epoll the Engine has no loops, and New cannot fail.
func New(loops int) (*Engine, error) {
	e := newEngine()
	return e, e.open(loops)
}

// newEngine returns an Engine without loops.
func newEngine() *Engine { return &Engine{began: time.Now()} }

// now returns the time on the Engine's clock.
func (e *Engine) now() time.Duration { return time.Since(e.began) }

// Close ends the Engine's goroutines and returns when they have ended. Every
// splice must have ended.
func (e *Engine) Close() {
	for _, l := range e.loops {
		l.close()
	}
	e.waiting.Wait()
}

// getWorkspace returns a workspace for one of n bulk connections, or for an interactive
// one if n is 0. The caller returns it before it waits.
func (e *Engine) getWorkspace(n int) *workspace {
	from, size := &e.small, chunk
	if n > 0 {
		from, size = &e.large, bulkChunk
	}
	w, ok := from.Get().(*workspace)
	if !ok {
		w = newWorkspace(size)
	}
	w.share(n)
	w.now = e.now()
	return w
}

func (e *Engine) putWorkspace(w *workspace) {
	if len(w.in) == chunk {
		e.small.Put(w)
	} else {
		e.large.Put(w)
	}
}

// A registration is a splice's entry in a loop.
type registration struct {
	loop     *loop // nil before enter, and without epoll
	slot     int32
	runnable bool   // the loop's queue holds the splice for another turn
	window   uint32 // the last window of the loop's load in which the splice had a turn

	awaitingWrite [2]bool // without epoll: a goroutine waits until the side is writable
}

// enter starts to wait for the splice's descriptors.
func (e *Engine) enter(s *Splice) error {
	if len(e.loops) == 0 {
		e.wait(s)
		return nil
	}
	return e.chooseLoop().enter(s)
}

// chooseLoop returns the loop for a new splice. The Engine must have loops.
func (e *Engine) chooseLoop() *loop { return e.loops[choose(e.loads())] }

// leave removes the splice from its loop, before its descriptors are closed.
func (e *Engine) leave(s *Splice) {
	if s.registration.loop != nil {
		s.registration.loop.leave(s)
	}
}

// setDescriptor makes the side use conn's descriptor.
func (x *side) setDescriptor(conn net.Conn) error {
	x.unix = conn.LocalAddr().Network() == "unix" // LocalAddr works for any wrapper of the connection
	if len(x.splice.engine.loops) == 0 {
		return x.useShared(conn)
	}
	return x.useDuplicate(conn)
}
