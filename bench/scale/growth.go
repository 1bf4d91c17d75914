package scale

import (
	"context"
	"fmt"
	"time"

	"github.com/drawbridge-gateway/drawbridge/bench/growth"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

// GrowthOptions are the settings of Growth.
type GrowthOptions struct {
	Options       // Growth does not use N
	Sizes   []int // numbers of resources of each kind, ascending; each size is a run
}

// Growth runs once for each size, and prints how each figure grows with the number of
// resources. A slope of 1 is linear growth; 0 is no growth.
func Growth(ctx context.Context, o GrowthOptions) error {
	table := growth.NewTable("resources of each kind", o.Sizes)
	for _, n := range o.Sizes {
		one := o.Options
		one.N, one.Writes = n, min(o.Writes, n)
		one.record = func(row string, figure float64) { table.Add(row, n, figure) }
		if err := Run(ctx, one); err != nil && ctx.Err() != nil {
			return err
		} // the report shows figures that miss their target
		fmt.Fprintln(o.Report)
	}
	return table.Write(o.Report)
}

// changes measures the process while a route changes 100 times a second.
func (r *run) changes(ctx context.Context) error {
	const every = 10 * time.Millisecond
	before, err := r.gateway.Tree.CPU()
	if err != nil {
		return err
	}
	tick := time.NewTicker(every)
	defer tick.Stop()
	var slowest time.Duration
	n := int(r.Idle / every)
	for i := range n {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
		began := time.Now()
		if _, err := r.gateway.Admin.PutRoute(ctx, &adminv1.PutRouteRequest{Route: r.route(i%r.n, fmt.Sprint("change ", i))}); err != nil {
			return err
		}
		slowest = max(slowest, time.Since(began))
	}
	after, err := r.gateway.Tree.CPU()
	if err != nil {
		return err
	}
	anon, err := r.gateway.Tree.Anon()
	if err != nil {
		return err
	}
	r.note("one route changed 100 times a second", "ms CPU", milliseconds(after-before)/float64(n))
	r.note("  slowest of them", "ms", milliseconds(slowest))
	r.note("  memory afterward (RssAnon)", "MiB", float64(anon)/(1<<20))
	return nil
}
