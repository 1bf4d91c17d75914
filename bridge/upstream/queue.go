package upstream

import (
	"container/list"
	"context"
	"sync"
	"sync/atomic"
	"time"
)

// A queue holds the Turns that wait for room, in the order in which they
// started to wait.
//
// Code that changes an input of limits or policies calls changed, which admits
// the Turns that now fit. The goroutine that calls changed assigns room to
// them, so that no other Turn can take it and no Turn wakes without a result. A
// Turn cannot miss a change between finding no room and waiting: once queued
// and counted in waiting, it looks again.
type queue struct {
	waiting atomic.Int64

	mu      sync.Mutex
	waiters list.List // holds *waiter, ordered by the tickets of their Turns
	tickets uint64    // issued so far
}

// A waiter is a Turn in the queue. Its Turn belongs to the queue until a
// holder of the lock removes it.
type waiter struct {
	turn  *Turn
	place *list.Element // nil after removal
	err   error         // why it stopped waiting; nil: the Turn has its endpoint
	ready chan struct{} // closed on removal
}

// changed must be called when endpoints come, leave or change, or when their
// load changes.
func (u *Upstream) changed() {
	if u.queue.waiting.Load() == 0 {
		return
	}
	u.queue.mu.Lock()
	u.serve()
	u.queue.mu.Unlock()
}

// serve admits the Turns that now fit. queue.mu is held.
func (u *Upstream) serve() {
	q := &u.queue
	alone := true // a connection for an exclusive Turn may be free
	for at := q.waiters.Front(); at != nil; {
		w := at.Value.(*waiter)
		t, err := w.turn, ErrOverloaded
		at = at.Next()
		if alone || !t.exclusive {
			err = t.take()
		}
		if err == ErrOverloaded {
			// If a Turn that can use any endpoint finds no room, no other Turn will.
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
			return // the remaining room is unknown until this Turn calls Connected, which is a change
		}
	}
}

// await waits until t has an endpoint or cannot get one.
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

// enqueue puts t into the queue and returns its waiter and the time it may
// wait. If t need not wait, it returns nil and the result of Next.
func (u *Upstream) enqueue(t *Turn) (w *waiter, left time.Duration, err error) {
	q, limits := &u.queue, &u.options.Limits
	q.mu.Lock()
	defer q.mu.Unlock()
	left = limits.PendingTimeout - t.waited
	t.release() // a waiting Turn holds nothing that others wait for
	// A Turn that had a place in the queue keeps it when it returns because its
	// connection was missing or failed.
	if t.ticket == 0 && q.waiting.Load() >= int64(limits.Pending) || left <= 0 {
		u.serve() // assigns the room that t released
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

// overload counts a Turn rejected by a limit.
func (u *Upstream) overload() error {
	u.overloaded.Add(1)
	return ErrOverloaded
}

// add inserts w by its ticket. mu is held.
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

// remove removes w. mu is held.
func (q *queue) remove(w *waiter) {
	q.waiters.Remove(w.place)
	w.place = nil
	q.waiting.Add(-1)
}
