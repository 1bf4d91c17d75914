package load

import (
	"context"
	"sync"
	"time"
)

// HTTPAt is HTTP as an open loop: perSecond requests are due each second, evenly spread
// over the connections, however fast the answers arrive. If a request is due while its
// connection still waits for an answer, it is sent after that answer. Its time counts
// from the moment it was due, so a stall counts for every request that it delays. Its
// unit is the request.
func HTTPAt(conns int, size uint64, perSecond float64) Func {
	return func(ctx context.Context, target Target, m *Meter) {
		slots := make(chan struct{}, 32) // as in Echo
		interval := time.Duration(float64(time.Second) * float64(conns) / perSecond)
		each(ctx, m, conns, func(i int) error {
			slots <- struct{}{}
			c, err := newHTTPConn(ctx, target, size, []string{"bench.test"})
			<-slots
			if err != nil {
				return err
			}
			defer c.close()
			r := m.recorder()
			if !m.allReady(ctx) {
				return nil
			}
			for due := time.Now().Add(interval * time.Duration(i) / time.Duration(conns)); ; due = due.Add(interval) {
				start := due
				if wait := time.Until(due); wait > 0 {
					if err := Sleep(ctx, wait); err != nil {
						return err
					}
					start = time.Now() // do not count the delay of our own timer
				}
				if err := c.get(func(int) {}); err != nil {
					return err
				}
				r.record(time.Since(start))
				m.add(1)
			}
		})
	}
}

// Sleep waits for d, or returns the error of ctx when it ends first.
func Sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Beside is a load during which another, of the given number of workers, drives traffic
// too. Only load is counted. Neither may fail.
func Beside(load, other Func, workers int) Func {
	return func(ctx context.Context, target Target, m *Meter) {
		quiet := NewMeter(workers)
		var wg sync.WaitGroup
		wg.Go(func() { other(ctx, target, quiet) })
		load(ctx, target, m)
		wg.Wait()
		if quiet.Failed.Load()+quiet.Mismatched.Load() > 0 {
			m.fail(quiet.Err())
		}
	}
}
