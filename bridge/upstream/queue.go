package upstream

import (
	"container/list"
	"context"
	"sync"
	"sync/atomic"
	"time"
)

// A queue is the Turns that wait until a limit allows them, the one that began to
// wait first in front.
//
// Whoever changes what limits and policies look at calls changed, which lets
// those go that may. They are given what they wait for by the one who lets them
// go, so that nobody else can take it, and none is woken for nothing. Nothing is
// lost between finding no room and waiting for it: a Turn looks once more when it
// is in the queue and counted in waiting.
type queue struct {
	waiting atomic.Int64

	mu      sync.Mutex
	waiters list.List // of *waiter, by their Turns' tickets
	tickets uint64    // given out
}

// A waiter is a Turn in the queue. Until it is taken out, by who holds the lock,
// its Turn is the queue's.
type waiter struct {
	turn  *Turn
	place *list.Element // nil once it is out
	err   error         // why it need not wait any more; nil: the Turn has its endpoint
	ready chan struct{} // closed when it was let go
}

// changed is called whenever endpoints come, go or change, or what they are sent
// does.
func (u *Upstream) changed() {
	if u.queue.waiting.Load() == 0 {
		return
	}
	u.queue.mu.Lock()
	u.serve()
	u.queue.mu.Unlock()
}

// serve lets those go that may. queue.mu is held.
func (u *Upstream) serve() {
	q := &u.queue
	alone := true // there may be a connection for one that needs it for itself
	for at := q.waiters.Front(); at != nil; {
		w := at.Value.(*waiter)
		t, err := w.turn, ErrOverloaded
		at = at.Next()
		if alone || !t.exclusive {
			err = t.take()
		}
		if err == ErrOverloaded {
			// Where one finds no room that may go anywhere, nobody does.
			switch {
			case t.tries > 0:
			case !t.exclusive || !u.LimitsConnections():
				return
			default:
				alone = false
			}
			continue
		}
		q.remove(w)
		w.err = err
		close(w.ready)
		if err == nil && !t.exclusive && t.at.shared.Load() > 0 {
			return // nobody knows for how many there is room; that it is Connected is a change
		}
	}
}

// await waits until t has an endpoint, or need not wait any more.
func (u *Upstream) await(t *Turn, wait func() (ctx context.Context, done func())) error {
	w, left, err := u.enqueue(t)
	if w == nil {
		return err
	}
	ctx, done := wait()
	defer done()
	began := time.Now()
	timer := time.NewTimer(left)
	defer timer.Stop()
	select {
	case <-w.ready:
	case <-ctx.Done():
	case <-timer.C:
	}
	u.queue.mu.Lock()
	defer u.queue.mu.Unlock()
	t.waited += time.Since(began)
	t.fulls = 0
	if w.place == nil {
		return w.err
	}
	u.queue.remove(w)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return u.overload()
}

// enqueue puts t into the queue and returns what it waits by, and for how long it
// may. If there is nothing to wait for, it returns nil and what Next does.
func (u *Upstream) enqueue(t *Turn) (w *waiter, left time.Duration, err error) {
	q, limits := &u.queue, &u.options.Limits
	q.mu.Lock()
	defer q.mu.Unlock()
	left = limits.PendingTimeout - t.waited
	t.release() // who waits holds nothing that others wait for
	// One who had a place in the queue and comes back, as there was no connection
	// after all or it failed, has it again.
	if t.ticket == 0 && q.waiting.Load() >= int64(limits.Pending) || left <= 0 {
		u.serve() // what t has released, to those who wait
		if err = t.take(); err == ErrOverloaded {
			err = u.overload()
		}
		return nil, 0, err
	}
	w = &waiter{turn: t, ready: make(chan struct{})}
	q.add(w)
	u.serve()
	if w.place == nil {
		return nil, 0, w.err
	}
	return w, left, nil
}

// overload counts a Turn that a limit has refused.
func (u *Upstream) overload() error {
	u.overloaded.Add(1)
	return ErrOverloaded
}

// add puts w where its ticket says. mu is held.
func (q *queue) add(w *waiter) {
	q.waiting.Add(1)
	if w.turn.ticket == 0 {
		q.tickets++
		w.turn.ticket = q.tickets
		w.place = q.waiters.PushBack(w)
		return
	}
	for at := q.waiters.Front(); at != nil; at = at.Next() {
		if at.Value.(*waiter).turn.ticket > w.turn.ticket {
			w.place = q.waiters.InsertBefore(w, at)
			return
		}
	}
	w.place = q.waiters.PushBack(w)
}

// remove takes w out. mu is held.
func (q *queue) remove(w *waiter) {
	q.waiters.Remove(w.place)
	w.place = nil
	q.waiting.Add(-1)
}
