package scale

import (
	"context"
	"fmt"
	"io"
	"math"
	"strings"
	"time"

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
	table := growth{sizes: o.Sizes, figures: map[string]map[int]float64{}}
	for _, n := range o.Sizes {
		one := o.Options
		one.N, one.Writes = n, min(o.Writes, n)
		one.record = func(row string, figure float64) { table.add(row, n, figure) }
		if err := Run(ctx, one); err != nil && ctx.Err() != nil {
			return err
		} // the report shows figures that miss their target
		fmt.Fprintln(o.Report)
	}
	return table.write(o.Report)
}

// A growth holds figures by row and size.
type growth struct {
	sizes   []int
	rows    []string // the rows in order
	figures map[string]map[int]float64
}

func (g *growth) add(row string, n int, figure float64) {
	if g.figures[row] == nil {
		g.figures[row] = map[int]float64{}
		g.rows = append(g.rows, row)
	}
	g.figures[row][n] = figure
}

func (g *growth) write(w io.Writer) error {
	var out strings.Builder
	fmt.Fprintf(&out, "%-52s", "resources of each kind")
	for _, n := range g.sizes {
		fmt.Fprintf(&out, " %10d", n)
	}
	out.WriteString("      slope\n")
	for _, row := range g.rows {
		fmt.Fprintf(&out, "%-52s", row)
		for _, n := range g.sizes {
			fmt.Fprintf(&out, " %10.2f", g.figures[row][n])
		}
		fmt.Fprintf(&out, " %10.2f\n", slope(g.sizes, g.figures[row]))
	}
	_, err := io.WriteString(w, out.String())
	return err
}

// slope returns the exponent of growth: the slope of the line that best fits the logarithms
// of sizes and figures. It ignores figures that are not positive.
func slope(sizes []int, figures map[int]float64) float64 {
	var n, sx, sy, sxx, sxy float64
	for _, size := range sizes {
		if figures[size] <= 0 {
			continue
		}
		x, y := math.Log(float64(size)), math.Log(figures[size])
		n, sx, sy, sxx, sxy = n+1, sx+x, sy+y, sxx+x*x, sxy+x*y
	}
	if n < 2 {
		return 0
	}
	return (n*sxy - sx*sy) / (n*sxx - sx*sx)
}

// changes measures the process while a route changes 100 times a second.
func (r *run) changes(ctx context.Context) error {
	const every = 10 * time.Millisecond
	before, err := r.gateway.tree.CPU()
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
		if _, err := r.gateway.admin.PutRoute(ctx, &adminv1.PutRouteRequest{Route: r.route(i%r.n, fmt.Sprint("change ", i))}); err != nil {
			return err
		}
		slowest = max(slowest, time.Since(began))
	}
	after, err := r.gateway.tree.CPU()
	if err != nil {
		return err
	}
	anon, err := r.gateway.tree.Anon()
	if err != nil {
		return err
	}
	r.note("one route changed 100 times a second", "ms CPU", milliseconds(after-before)/float64(n))
	r.note("  slowest of them", "ms", milliseconds(slowest))
	r.note("  memory afterward (RssAnon)", "MiB", float64(anon)/(1<<20))
	return nil
}
