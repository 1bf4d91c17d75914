package splice

import (
	"net"
	"sync"
	"time"
)

// An Engine carries splices. It starts with the first one, and its owner closes
// it when all have ended. All methods may be called concurrently.
type Engine struct {
	began   time.Time // when the clock stood at 0
	loops   []*loop   // none: goroutines wait
	buffers buffers

	// Workspaces, for connections in full flow and for others.
	large, small sync.Pool

	waiting sync.WaitGroup // the goroutines that wait
}

// New returns an Engine of as many loops as are wanted, or as many as there are
// processors if that is 0. Where there is no epoll it has none, and nothing can
// fail.
func New(loops int) (*Engine, error) {
	e := newEngine()
	return e, e.open(loops)
}

// newEngine returns an Engine without loops.
func newEngine() *Engine { return &Engine{began: time.Now()} }

// now returns the time of the Engine's clock.
func (e *Engine) now() time.Duration { return time.Since(e.began) }

// Close ends the Engine's goroutines and returns when they have ended. Every
// splice must have ended.
func (e *Engine) Close() {
	for _, l := range e.loops {
		l.close()
	}
	e.waiting.Wait()
}

// space lends a workspace, for n connections in full flow or for others. It is
// given back before a wait.
func (e *Engine) space(n int) *workspace {
	from, size := &e.small, chunk
	if n > 0 {
		from, size = &e.large, most
	}
	w, ok := from.Get().(*workspace)
	if !ok {
		w = newWorkspace(size)
	}
	w.divide(n)
	w.now = e.now()
	return w
}

func (e *Engine) putSpace(w *workspace) {
	if len(w.in) == chunk {
		e.small.Put(w)
	} else {
		e.large.Put(w)
	}
}

// A place is where a splice is among what waits for descriptors.
type place struct {
	loop *loop // nil: nowhere yet, or goroutines wait
	slot int32
	more bool // it is to have another turn without an event

	waits [2]bool // for goroutines: one waits until a side can be written to
}

// enter has the splice's descriptors waited for.
func (e *Engine) enter(s *Splice) error {
	if len(e.loops) == 0 {
		e.wait(s)
		return nil
	}
	return e.least().enter(s)
}

// least returns the loop that has the fewest splices. There must be one.
func (e *Engine) least() *loop {
	best := e.loops[0]
	for _, l := range e.loops[1:] {
		if l.splices.Load() < best.splices.Load() {
			best = l
		}
	}
	return best
}

// leave forgets the splice, whose descriptors are about to be closed.
func (e *Engine) leave(s *Splice) {
	if s.place.loop != nil {
		s.place.loop.leave(s)
	}
}

// adopt has the side use the connection's descriptor.
func (x *side) adopt(conn net.Conn) error {
	x.unix = conn.LocalAddr().Network() == "unix" // whatever it is wrapped in
	if len(x.splice.engine.loops) == 0 {
		return x.useRaw(conn)
	}
	return x.useOwn(conn)
}
