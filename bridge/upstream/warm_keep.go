package upstream

import (
	"context"
	"math/rand/v2"
	"net"
	"slices"
	"sync"
	"time"
)

// run keeps connections ready until ctx ends.
func (w *warmPool) run(ctx context.Context) {
	var fills sync.WaitGroup
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			fills.Wait()
			closeAll(w.empty())
			return
		case <-w.wake:
		case <-timer.C:
		}
		w.lookAround(time.Now())
		gone, fill, next := w.tend(time.Now())
		closeAll(gone)
		for range fill {
			fills.Go(func() { w.fill(ctx) })
		}
		timer.Reset(next)
	}
}

// closeAll ends the streams of connections as they should be ended.
func closeAll(conns []*warmConn) {
	for _, c := range conns {
		c.Close()
	}
}

// empty takes all that there is.
func (w *warmPool) empty() []*warmConn {
	w.mu.Lock()
	defer w.mu.Unlock()
	defer w.tell()
	return w.emptyLocked()
}

// emptyLocked takes all that there is. w.mu is held.
func (w *warmPool) emptyLocked() []*warmConn {
	all := w.ready
	if w.trial != nil {
		all = append(all, w.trial)
	}
	w.ready, w.trial = nil, nil
	return all
}

// tend takes out what is not to be kept. It returns how many connections are to
// be made now, and after what time there may be more to do.
func (w *warmPool) tend(now time.Time) (gone []*warmConn, fill int, next time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	defer w.tell()
	if w.barred() {
		w.short, w.refilling = time.Time{}, false
		return w.emptyLocked(), 0, lookFresh
	}
	down := w.down()
	if w.trial != nil && !down {
		w.ready, w.trial = append(w.ready, w.trial), nil
	}
	w.ready = slices.DeleteFunc(w.ready, func(c *warmConn) bool {
		old := !now.Before(c.end)
		if old && !down {
			w.expired.Add(1)
		}
		if old || down {
			gone = append(gone, c)
		}
		return old || down
	})
	next = time.Hour
	for _, c := range w.ready {
		next = min(next, c.end.Sub(now))
	}
	if len(w.ready) > 0 || w.trial != nil {
		next = min(next, w.lookAt().Sub(now))
	}

	want := w.size
	if down || !w.proven {
		want = 1 // to see whether it is up
	}
	want -= len(w.ready) + w.making
	if w.trial != nil {
		want--
	}
	if want <= 0 {
		w.short, w.refilling = time.Time{}, false
		return gone, 0, next
	}
	if until := w.notBefore(down); now.Before(until) {
		return gone, 0, min(next, until.Sub(now))
	}
	missing := want + w.making // one that is being made is missing until it is ready
	hurry := 2*missing > w.size
	if until := w.afterLull(); !w.refilling && !hurry && missing < mostShort && now.Before(until) {
		return gone, 0, min(next, until.Sub(now))
	}
	if w.scarce() {
		return gone, 0, min(next, lookFresh)
	}
	atOnce := leisurelyFills
	if hurry {
		atOnce = maxFills
	}
	fill = max(min(want, atOnce-w.making), 0)
	w.refilling = true
	w.making += fill
	return gone, fill, next // each that is made signals, so that the rest follows
}

// afterLull returns when those that were taken are to be replaced if there is no
// hurry. w.mu is held.
func (w *warmPool) afterLull() time.Time {
	if w.short.IsZero() {
		return time.Time{}
	}
	quiet, latest := w.taken.Add(lull), w.short.Add(longestLull)
	if quiet.Before(latest) {
		return quiet
	}
	return latest
}

// notBefore returns when the next connection may be made. w.mu is held.
func (w *warmPool) notBefore(down bool) time.Time {
	if !down {
		// Somebody else has found the endpoint up. But where only some attempts
		// fail, those here must not follow each other as fast as others succeed.
		w.failing.cut()
	}
	if w.closing.until.After(w.failing.until) {
		return w.closing.until
	}
	return w.failing.until
}

// fill makes one connection. It is one of those counted in w.making.
func (w *warmPool) fill(ctx context.Context) {
	select {
	case w.filling <- struct{}{}:
	case <-ctx.Done():
		return
	}
	c := new(warmConn)
	conn, err := w.dial(ctx, func() { w.drain(c) })
	<-w.filling
	if w.keep(c, conn, err) {
		w.signal()
		return
	}
	conn.Close()
	w.signal()
}

// keep takes in what dialling came to, and returns false if the connection is
// not to be kept.
func (w *warmPool) keep(c *warmConn, conn net.Conn, err error) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	defer w.tell()
	w.making--
	now := time.Now()
	if err != nil {
		w.failing.strike(now)
		return true
	}
	// Ended at different times, they are not all replaced at once.
	c.Conn, c.made, c.end = conn, now, now.Add(w.maxAge-rand.N(w.maxAge/8+1))
	switch {
	case w.stopped || c.drained || w.barred():
		return false
	case !w.down():
		w.failing.clear()
		w.proven = true
		w.ready = append(w.ready, c)
		return true
	case w.trial == nil:
		w.trial = c
		return true
	}
	return false
}

// drain closes a connection that nobody uses yet. One that was given out is its
// new owner's.
func (w *warmPool) drain(c *warmConn) {
	w.mu.Lock()
	c.drained = true
	i := slices.Index(w.ready, c)
	held := i >= 0 || w.trial == c
	if i >= 0 {
		w.ready = slices.Delete(w.ready, i, i+1)
	}
	if w.trial == c {
		w.trial = nil
	}
	w.tell()
	w.mu.Unlock()
	if held {
		c.Close()
		w.signal()
	}
}

// lookAt returns when those that are ready are to be looked at next. w.mu is
// held.
func (w *warmPool) lookAt() time.Time {
	young := w.trial != nil
	if n := len(w.ready); n > 0 {
		young = young || w.looked.Sub(w.ready[n-1].made) < freshFor
	}
	if young {
		return w.looked.Add(lookFresh)
	}
	return w.looked.Add(lookOld)
}

// lookAround looks at all connections, if it is time to, and closes those that
// are over.
func (w *warmPool) lookAround(now time.Time) {
	w.mu.Lock()
	if now.Before(w.lookAt()) {
		w.mu.Unlock()
		return
	}
	w.looked = now
	all := slices.Clone(w.ready)
	trial := w.trial
	w.mu.Unlock()
	dead := false
	for _, c := range all {
		if err := w.lookAtReady(c); err != nil {
			dead = true
			w.bury(c, err)
		}
	}
	if dead {
		w.settle(false, true)
	}
	if trial != nil && now.Sub(trial.made) >= lookFresh {
		w.judge(trial)
	}
}

// lookAtReady looks at a connection if nobody has taken it meanwhile, and takes
// it out if it is over. Looking never waits, so the lock is held.
func (w *warmPool) lookAtReady(c *warmConn) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	defer w.tell()
	i := slices.Index(w.ready, c)
	if i < 0 {
		return nil
	}
	_, err := w.look(c.Conn)
	if err != nil {
		w.ready = slices.Delete(w.ready, i, i+1)
	}
	return err
}

// judge says what the connection shows that was made while the endpoint was
// down because it had refused us after a handshake: only what it sends says that
// it accepts us now.
func (w *warmPool) judge(c *warmConn) {
	w.mu.Lock()
	if w.trial != c { // drained, or the endpoint is up
		w.mu.Unlock()
		return
	}
	w.trial = nil
	heard, err := w.look(c.Conn)
	good := err == nil && heard
	if !good {
		w.failing.strike(time.Now())
	}
	w.mu.Unlock()
	switch {
	case err != nil:
		w.bury(c, err)
	case !good:
		c.Close()
	default:
		w.replied()
		if !w.accept(c) {
			c.Close()
		}
	}
}

// accept takes in the connection that was on trial.
func (w *warmPool) accept(c *warmConn) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	defer w.tell()
	w.failing.clear()
	w.proven = true
	if c.drained {
		return false
	}
	w.ready = append(w.ready, c)
	return true
}
