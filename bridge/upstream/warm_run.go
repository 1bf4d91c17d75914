package upstream

import (
	"context"
	"math/rand/v2"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/drawbridge-gateway/drawbridge/bridge/live"
)

// run keeps connections ready until ctx ends.
func (w *warmPool) run(ctx context.Context) {
	var fills sync.WaitGroup
	defer fills.Wait()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			fills.Wait()
			closeAll(w.removeAll())
			return
		case <-w.wake:
		case <-timer.C:
		}
		w.lookAtAll(time.Now())
		gone, fill, next := w.maintain(time.Now())
		closeAll(gone)
		for range fill {
			fills.Go(func() { w.fill(ctx) })
		}
		timer.Reset(next)
	}
}

// closeAll closes connections with a proper end of stream.
func closeAll(conns []*warmConn) {
	for _, c := range conns {
		c.Close()
	}
}

func (w *warmPool) removeAll() []*warmConn {
	w.mu.Lock()
	defer w.mu.Unlock()
	defer w.report(w.idle)
	return w.empty()
}

// maintain removes connections that must go. It returns how many to dial now, and
// when to call it again.
func (w *warmPool) maintain(now time.Time) (gone []*warmConn, fill int, next time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	defer w.report(w.idle)
	if w.unavailable() {
		w.enough()
		return w.empty(), 0, lookFresh
	}
	down := w.down()
	gone, next = w.sweep(now, down)
	fill, wait := w.plan(now, w.count(), down, w.scarce)
	return gone, fill, min(next, wait)
}

// fill dials one of the connections that plan counted.
func (w *warmPool) fill(ctx context.Context) {
	defer w.signal()
	c := new(warmConn)
	conn, err := w.dialOne(ctx, c)
	if !w.admit(c, conn, err) {
		conn.Close()
	}
}

// dialOne dials a connection once a slot is free.
func (w *warmPool) dialOne(ctx context.Context, c *warmConn) (conn net.Conn, err error) {
	select {
	case w.slots <- struct{}{}:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	defer func() { <-w.slots }()
	if panicked := protect(w.log, "making a warm connection", func() {
		conn, err = w.dial(ctx, warmHolder{w, c})
	}); panicked != nil {
		return nil, panicked
	}
	return conn, err
}

// admit handles the result of a dial, and returns false if the connection must
// not be kept.
func (w *warmPool) admit(c *warmConn, conn net.Conn, err error) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	defer w.report(w.idle)
	w.dialing--
	now := time.Now()
	if err != nil {
		w.failing.grow(now)
		return true
	}
	// Staggered ends keep them from being replaced all at once.
	c.Conn, c.made, c.end = conn, now, now.Add(w.maxAge-rand.N(w.maxAge/8+1))
	switch {
	case w.retired || c.drained || w.unavailable():
		return false
	case !w.down():
		w.noteMade()
		w.ready = append(w.ready, c)
		return true
	case w.trial == nil:
		w.trial = c
		return true
	}
	return false
}

// A warmHolder is the Holder of a warm connection until it is handed out.
type warmHolder struct {
	pool *warmPool
	conn *warmConn
}

func (h warmHolder) Retire() { h.pool.drain(h.conn) }

func (h warmHolder) Work() (requests int, held bool) { return 0, !h.pool.isTaken(h.conn) }

func (h warmHolder) Protocol() live.Protocol { return live.TCP }

// isTaken reports whether a connection was handed out, or is being closed.
func (w *warmPool) isTaken(c *warmConn) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return c.Conn != nil && c != w.trial && !slices.Contains(w.ready, c)
}

// drain closes an unused connection. A connection that was handed out belongs
// to its new owner.
func (w *warmPool) drain(c *warmConn) {
	if w.removeDrained(c) {
		c.Close()
		w.signal()
	}
}

func (w *warmPool) removeDrained(c *warmConn) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	defer w.report(w.idle)
	c.drained = true
	return w.remove(c)
}

// lookAtAll checks all connections if a check is due, and closes the dead ones.
func (w *warmPool) lookAtAll(now time.Time) {
	all, trial := w.due(now)
	dead := false
	for _, c := range all {
		if err := w.lookAtReady(c); err != nil {
			dead = true
			w.discard(c, err)
		}
	}
	if dead {
		w.noteTake(false, true)
	}
	if trial != nil && now.Sub(trial.made) >= lookFresh {
		w.endTrial(trial)
	}
}

// due returns the connections to check, or none if no check is due.
func (w *warmPool) due(now time.Time) (all []*warmConn, trial *warmConn) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if now.Before(w.lookAt()) {
		return nil, nil
	}
	w.looked = now
	return slices.Clone(w.ready), w.trial
}

// lookAtReady checks a connection unless it was taken meanwhile, and removes
// it if it is dead. The check never blocks, so it may hold the lock.
func (w *warmPool) lookAtReady(c *warmConn) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	defer w.report(w.idle)
	if !slices.Contains(w.ready, c) {
		return nil
	}
	_, err := w.look(c.Conn)
	if err != nil {
		w.remove(c)
	}
	return err
}

// endTrial acts on the result of a trial connection, which was dialed while the
// endpoint was down because it had rejected the gateway after a handshake. Only
// data from the endpoint shows that it accepts the gateway now.
func (w *warmPool) endTrial(c *warmConn) {
	current, received, err := w.probeTrial(c)
	switch {
	case !current: // the trial connection was drained, or the endpoint is up
	case err != nil:
		w.discard(c, err)
	case !received:
		c.Close()
	default:
		w.replied()
		if !w.acceptTrial(c) {
			c.Close()
		}
	}
}

// probeTrial removes the trial connection and checks it.
func (w *warmPool) probeTrial(c *warmConn) (current, received bool, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.trial != c {
		return false, false, nil
	}
	w.trial = nil
	received, err = w.look(c.Conn)
	if err != nil || !received {
		w.failing.grow(time.Now())
	}
	return true, received, err
}

// acceptTrial keeps the trial connection, unless it was drained.
func (w *warmPool) acceptTrial(c *warmConn) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	defer w.report(w.idle)
	w.noteMade()
	if c.drained {
		return false
	}
	w.ready = append(w.ready, c)
	return true
}
