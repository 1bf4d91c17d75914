package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"math"
	"os"
	"text/tabwriter"
	"time"

	"github.com/drawbridge-gateway/drawbridge/bench/keys"
	"github.com/drawbridge-gateway/drawbridge/bench/load"
	"github.com/drawbridge-gateway/drawbridge/bench/proxy"
	"github.com/drawbridge-gateway/drawbridge/bench/stats"
)

// tailsCommand is the argument that measures latencies at fixed rates.
const tailsCommand = "tails"

const (
	tailConns = 64
	tailBytes = 1 << 10
)

// tails measures the latency of requests while the machine is not saturated.
type tails struct {
	options *options
	kinds   []proxy.Kind // the proxies; the first is Drawbridge
	keys    *keys.Keys
	report  io.Writer
}

// runTails executes the command line of tailsCommand.
func runTails(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet(tailsCommand, flag.ContinueOnError)
	binary := flags.String("drawbridge", "../bin/drawbridge", "`binary` of Drawbridge")
	pairs := flags.Int("pairs", 5, "how many `times` each proxy is measured")
	seconds := flags.Float64("seconds", 5, "duration of one measurement in `seconds`")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if flags.NArg() > 0 || *pairs < 1 || *seconds <= 0 {
		return fmt.Errorf("tails: -pairs and -seconds must be more than 0, and nothing else may be given")
	}
	k, remove, err := newKeys()
	if err != nil {
		return err
	}
	defer remove()
	t := &tails{
		options: &options{pairs: *pairs, warmUp: 400 * time.Millisecond, length: time.Duration(*seconds * float64(time.Second))},
		keys:    k,
		report:  os.Stdout,
	}
	for _, kind := range []proxy.Kind{proxy.Drawbridge{Label: "drawbridge", Path: *binary}, proxy.Nginx{}, proxy.HAProxy{}} {
		if _, err := kind.Version(ctx); err != nil {
			if len(t.kinds) == 0 {
				return err
			}
			fmt.Fprintf(t.report, "left out: %s: %v\n", kind.Name(), err)
			continue
		}
		t.kinds = append(t.kinds, kind)
	}
	return t.run(ctx)
}

// run finds a rate that every proxy reaches and measures at shares of that rate. Then it
// measures small requests beside large ones.
func (t *tails) run(ctx context.Context) error {
	saturated, err := t.measure(ctx, load.HTTP(tailConns, tailBytes, load.Requests))
	if err != nil {
		return err
	}
	rate := math.Inf(1)
	for _, samples := range saturated {
		rate = min(rate, stats.Median(column(samples, rateOf)))
	}
	fmt.Fprintf(t.report, "GET of 1 KiB over %d keep-alive connections; the slowest proxy reaches %.0f requests/s\n", tailConns, rate)
	for _, share := range []float64{0.5, 0.8} {
		got, err := t.measure(ctx, load.HTTPAt(tailConns, tailBytes, share*rate))
		if err != nil {
			return err
		}
		t.print(fmt.Sprintf("at %.0f requests/s, %.0f %% of that", share*rate, 100*share), got)
	}
	alone, err := t.measure(ctx, load.HTTPAt(tailConns, tailBytes, rate/5))
	if err != nil {
		return err
	}
	t.print(fmt.Sprintf("at %.0f requests/s, alone", rate/5), alone)
	bulk := load.HTTPAt(2, 10<<20, 10)
	beside, err := t.measure(ctx, load.Beside(load.HTTPAt(tailConns, tailBytes, rate/5), bulk, 2))
	if err != nil {
		return err
	}
	t.print(fmt.Sprintf("at %.0f requests/s, beside ten answers of 10 MiB a second", rate/5), beside)
	for i, k := range t.kinds {
		r := stats.Ratios(column(beside[i], p99Of), column(alone[i], p99Of))
		fmt.Fprintf(t.report, "%s: p99 beside bulk is %s of p99 alone\n", k.Name(), ratioText(r))
	}
	return nil
}

// measure runs a load through each proxy in turns, and returns each one's samples.
func (t *tails) measure(ctx context.Context, f load.Func) ([][]sample, error) {
	w := row{service: proxy.Service{HTTP: true}, work: work{load: f, workers: tailConns}, unit: perRequest}
	samples := make([][]sample, len(t.kinds))
	sites := make([]*site, len(t.kinds))
	for i, k := range t.kinds {
		var err error
		if sites[i], err = newSite(ctx, k, t.keys, w, t.options); err != nil {
			return nil, err
		}
		defer sites[i].close()
	}
	for range t.options.pairs {
		for i, s := range sites {
			got, err := s.measure(ctx)
			if err := errors.Join(ctx.Err(), err); err != nil {
				return nil, fmt.Errorf("%s: %w", t.kinds[i].Name(), err)
			}
			samples[i] = append(samples[i], got)
		}
	}
	return samples, nil
}

// print writes a line for each proxy.
func (t *tails) print(title string, samples [][]sample) {
	fmt.Fprintf(t.report, "\n%s\n", title)
	w := tabwriter.NewWriter(t.report, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "  proxy\trequests/s\tp50 ms\tp99 ms\tp99.9 ms\tCPU µs/request\tp99 of drawbridge ÷ it")
	for i, k := range t.kinds {
		ratio := "-"
		if i > 0 {
			ratio = ratioText(stats.Ratios(column(samples[0], p99Of), column(samples[i], p99Of)))
		}
		ms := func(of func(sample) float64) string { return short(1e3 * stats.Median(column(samples[i], of))) }
		fmt.Fprintf(w, "  %s\t%s\t%s\t%s\t%s\t%s\t%s\n", k.Name(), short(stats.Median(column(samples[i], rateOf))), ms(p50Of), ms(p99Of), ms(p999Of),
			short(1e6*stats.Median(column(samples[i], figureOf))), ratio)
	}
	_ = w.Flush()
}
