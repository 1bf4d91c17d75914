package load

import (
	"context"
	"time"

	"github.com/drawbridge-gateway/drawbridge/bench/wire"
)

// Churn makes a connection, exchanges size bytes and closes it, with atATime
// workers. Its unit is the connection. It records the time from the first
// packet to the first byte returned.
//
// Without perSecond each worker continues at once. The machine is then
// saturated, and the latency only reflects the throughput. With perSecond,
// that many connections are started each second.
func Churn(atATime, size, perSecond int) Func {
	return func(ctx context.Context, target Target, m *Meter) {
		header := wire.AppendHeader(nil, wire.Echo, 0)
		each(ctx, m, atATime, func(i int) error {
			r := m.recorder()
			msg := newMessage(i, size)
			pace := newPace(i, atATime, perSecond)
			defer pace.stop()
			for first := true; ctx.Err() == nil; first = false {
				start := time.Now()
				if err := churnOnce(ctx, target, msg, header); err != nil {
					return err // one failure is enough to fail the row
				}
				r.record(time.Since(start))
				m.add(1)
				if first {
					m.workerReady()
				}
				pace.wait(ctx)
			}
			return nil
		})
	}
}

func churnOnce(ctx context.Context, target Target, msg *message, header []byte) error {
	c, err := target.dial(ctx)
	if err != nil {
		return err
	}
	defer c.Close()
	// One record carries the whole answer, so its last byte arrives with its
	// first.
	return msg.roundTripAfter(c, header[:len(header):len(header)])
}

// A pace schedules the connections of a worker.
type pace struct{ ticks *time.Ticker }

// newPace spreads the connections of all workers evenly.
func newPace(worker, workers, perSecond int) pace {
	if perSecond == 0 {
		return pace{}
	}
	time.Sleep(time.Second * time.Duration(worker) / time.Duration(perSecond))
	return pace{time.NewTicker(time.Second * time.Duration(workers) / time.Duration(perSecond))}
}

func (p pace) wait(ctx context.Context) {
	if p.ticks == nil {
		return
	}
	select {
	case <-p.ticks.C:
	case <-ctx.Done():
	}
}

func (p pace) stop() {
	if p.ticks != nil {
		p.ticks.Stop()
	}
}
