package growth

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"time"

	"github.com/drawbridge-gateway/drawbridge/bench/chart"
	"github.com/drawbridge-gateway/drawbridge/bench/load"
	"github.com/drawbridge-gateway/drawbridge/bench/stats"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

// Rows of Revisions.
const (
	revCPU    = "CPU of a write, ms"
	revP50    = "p50 of a write, ms"
	revP99    = "p99 of a write, ms"
	revMemory = "memory, MiB"
	revStore  = "store, MiB"
)

// Revisions measures a gateway whose routes change continuously. The writes are an open
// loop: a write counts from the moment it was due, so a stall counts for every write
// that it delays.
func Revisions(ctx context.Context, o Options) error {
	return with(ctx, o, true, func(b *bench) error {
		if err := b.fillRoutes(ctx, o.Routes); err != nil {
			return err
		}
		if err := b.gateway.Stop(); err != nil {
			return err
		}
		if _, err := b.gateway.Start(ctx); err != nil {
			return err
		}
		run := &changes{bench: b, table: NewTable("revisions", o.Changing)}
		return run.measure(ctx)
	})
}

// changes is the state of Revisions.
type changes struct {
	*bench
	table *Table

	began   time.Time
	seconds []float64
	series  [4][]float64 // memory, store, CPU, p99
}

// A level is the use of resources at one time.
type level struct{ memory, store, cpu float64 } // MiB, MiB, ms/s

func (l level) String() string {
	return fmt.Sprintf("memory %.1f MiB, store %.2f MiB, CPU %.2f ms/s", l.memory, l.store, l.cpu)
}

// level measures the gateway while nothing changes.
func (c *changes) level(ctx context.Context) (l level, err error) {
	if l.memory, err = c.memory(ctx); err != nil {
		return l, err
	}
	began := time.Now()
	spent, err := c.cpu(func() error { return load.Sleep(ctx, c.Silence) })
	if err != nil {
		return l, err
	}
	l.cpu = milliseconds(spent) / time.Since(began).Seconds()
	l.store, err = sizeOf(c.gateway.Data())
	return l, err
}

func (c *changes) measure(ctx context.Context) error {
	before, err := c.level(ctx)
	if err != nil {
		return err
	}
	c.began = time.Now()
	// The table has a column for each part of the writes, the plot a point for each second.
	each := max(1, int(time.Second/c.Every))
	var took []float64
	var spent time.Duration
	for done, due, column := 0, time.Now(), 0; column < len(c.Changing); {
		var some []float64
		cpu, err := c.cpu(func() error {
			for range min(each, c.Changing[column]-done) {
				due = due.Add(c.Every)
				if err := c.write(ctx, done, due, &some); err != nil {
					return err
				}
				done++
			}
			return nil
		})
		if err != nil {
			return err
		}
		took, spent = append(took, some...), spent+cpu
		now, err := c.sample(cpu, some)
		if err != nil {
			return err
		}
		if done < c.Changing[column] {
			continue
		}
		n := c.Changing[column]
		c.table.Add(revCPU, n, milliseconds(spent)/float64(len(took)))
		c.table.Add(revP50, n, stats.Quantile(took, 0.5))
		c.table.Add(revP99, n, stats.Quantile(took, 0.99))
		c.table.Add(revMemory, n, now.memory)
		c.table.Add(revStore, n, now.store)
		took, spent, column = nil, 0, column+1
	}
	title := fmt.Sprintf("%d routes, and a change of one every %v", c.Routes, c.Every)
	if err := c.report(c.table, "growth-revisions.svg", title, revCPU, revP50, revP99, revMemory, revStore); err != nil {
		return err
	}
	// Show how the process becomes idle.
	for range min(30, len(c.seconds)) {
		spent, err := c.cpu(func() error { return load.Sleep(ctx, time.Duration(each)*c.Every) })
		if err != nil {
			return err
		}
		if _, err := c.sample(spent, nil); err != nil {
			return err
		}
	}
	after, err := c.level(ctx)
	if err != nil {
		return err
	}
	fmt.Fprintf(c.Report, "idle before: %v\nidle after:  %v\n\n", before, after)
	if c.Plots == "" {
		return nil
	}
	return chart.Time(filepath.Join(c.Plots, "growth-revisions-time.svg"), title, "seconds", c.seconds, []chart.Series{
		{Name: "memory, MiB", Color: 0, Values: c.series[0]}, {Name: "store, MiB", Color: 1, Values: c.series[1]},
		{Name: "CPU, % of a core", Color: 2, Values: c.series[2]}, {Name: "p99 of a write, ms", Color: 3, Values: c.series[3]},
	})
}

// write changes a route when it is due.
func (c *changes) write(ctx context.Context, i int, due time.Time, took *[]float64) error {
	start := due
	if wait := time.Until(due); wait > 0 {
		if err := load.Sleep(ctx, wait); err != nil {
			return err
		}
		start = time.Now() // do not count the delay of our own timer
	}
	_, err := c.gateway.Admin.PutRoute(ctx, &adminv1.PutRouteRequest{Route: route(i%c.Routes, fmt.Sprint("change ", i))})
	*took = append(*took, milliseconds(time.Since(start)))
	return err
}

// sample records a point of the plot: spent is the CPU since the point before.
func (c *changes) sample(spent time.Duration, took []float64) (l level, err error) {
	if l.memory, err = c.memoryNow(); err != nil {
		return l, err
	}
	if l.store, err = sizeOf(c.gateway.Data()); err != nil {
		return l, err
	}
	last, now := 0.0, time.Since(c.began).Seconds()
	if len(c.seconds) > 0 {
		last = c.seconds[len(c.seconds)-1]
	}
	c.seconds = append(c.seconds, now)
	for i, v := range []float64{l.memory, l.store, 100 * spent.Seconds() / (now - last), stats.Quantile(slices.Clone(took), 0.99)} {
		c.series[i] = append(c.series[i], v)
	}
	return l, nil
}
