package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/drawbridge-gateway/drawbridge/bench/keys"
	"github.com/drawbridge-gateway/drawbridge/bench/proxy"
	"github.com/drawbridge-gateway/drawbridge/bench/stats"
)

// gateCommand is the argument that compares two binaries, and fails if the new one
// costs more.
const gateCommand = "gate"

// gateRows are the rows of a gate by default: one for each kind of work.
const gateRows = "bulk-down,reqresp,churn-resumed,http-small,http2-in,grpc-unary,http-idle-1000"

// confidence is the confidence of the interval that decides. The gate checks the interval
// after every pair, so a single check must be more reliable than the result of the row.
const confidence = 0.99

// A gate compares two binaries in rows.
type gate struct {
	options *options
	base    proxy.Kind
	next    proxy.Kind
	// limit is the greatest ratio of the new figure to the base's that passes.
	limit float64
	// maxPairs bounds the number of pairs of a row.
	maxPairs int
	report   io.Writer
}

// parseGate parses the command line of gateCommand.
func parseGate(args []string) (*gate, error) {
	flags := flag.NewFlagSet(gateCommand, flag.ContinueOnError)
	g := &gate{options: &options{warmUp: 400 * time.Millisecond}, report: os.Stdout}
	base := flags.String("base", "", "`binary` to compare with")
	next := flags.String("drawbridge", "../bin/drawbridge", "`binary` to judge")
	rowList := flags.String("rows", gateRows, "`rows` to run, separated by commas")
	percent := flags.Float64("limit", 5, "`percent` more CPU or memory that fails")
	flags.IntVar(&g.maxPairs, "pairs", 40, "most `pairs` of a row")
	seconds := flags.Float64("seconds", 2, "duration of one measurement in `seconds`")
	silence := flags.Float64("silence", 5, "how many `seconds` idle connections stay idle")
	if err := flags.Parse(args); err != nil {
		return nil, err
	}
	if flags.NArg() > 0 || *base == "" || *percent <= 0 || *seconds <= 0 || *silence < 0 || g.maxPairs < 1 {
		return nil, fmt.Errorf("gate: -base must be given; -limit, -seconds and -pairs must be more than 0, -silence not less; nothing else may be given")
	}
	g.limit = 1 + *percent/100
	g.options.length = time.Duration(*seconds * float64(time.Second))
	g.options.silence = time.Duration(*silence * float64(time.Second))
	g.base, g.next = proxy.Drawbridge{Label: "base", Path: *base}, proxy.Drawbridge{Label: "new", Path: *next}
	var err error
	g.options.rows, err = selectRows(*rowList)
	return g, err
}

// runGate executes the command line of gateCommand.
func runGate(ctx context.Context, args []string) error {
	g, err := parseGate(args)
	if err != nil {
		return err
	}
	return g.run(ctx)
}

// run judges every row. Its error lists the rows that did not pass.
func (g *gate) run(ctx context.Context) error {
	k, remove, err := newKeys()
	if err != nil {
		return err
	}
	defer remove()
	var failed []string
	for _, row := range g.options.rows {
		v, err := g.judge(ctx, row, k)
		if err != nil {
			return fmt.Errorf("%s: %w", row.name, err)
		}
		fmt.Fprintf(g.report, "%-16s %s\n", row.name, v)
		if v.outcome != passed {
			failed = append(failed, row.name)
		}
	}
	if len(failed) > 0 {
		return fmt.Errorf("gate: %s did not pass", strings.Join(failed, ", "))
	}
	return nil
}

// An outcome is the result of a row's pairs.
type outcome string

const (
	passed    outcome = "passed"
	costsMore outcome = "COSTS MORE"
	// undecided: the pairs are too noisy, or the ratio is too close to the limit.
	undecided outcome = "UNDECIDED"
)

// A judgment is the outcome of a row and its evidence.
type judgment struct {
	outcome outcome
	ratio   float64 // the median ratio of new to base
	low     float64 // its confidence interval
	high    float64
	pairs   int
}

func (j judgment) String() string {
	return fmt.Sprintf("%-10s %.3f of the base (%.3f-%.3f with %.0f %% confidence, %d pairs)", j.outcome, j.ratio, j.low, j.high, 100*confidence, j.pairs)
}

// judge measures pairs of a row until it can decide.
func (g *gate) judge(ctx context.Context, row row, k *keys.Keys) (judgment, error) {
	before, err := newSite(ctx, g.base, k, row, g.options)
	if err != nil {
		return judgment{}, err
	}
	defer before.close()
	after, err := newSite(ctx, g.next, k, row, g.options)
	if err != nil {
		return judgment{}, err
	}
	defer after.close()
	var ratios []float64
	for {
		a, errA := before.measure(ctx)
		b, errB := after.measure(ctx)
		if err := errors.Join(ctx.Err(), errA, errB); err != nil {
			return judgment{}, err
		}
		if a.Figure <= 0 || b.Figure <= 0 {
			return judgment{}, errors.New("a measurement shows no cost: -seconds is too short")
		}
		ratios = append(ratios, b.Figure/a.Figure)
		if j := decide(ratios, g.limit); j.outcome != undecided || len(ratios) >= g.maxPairs {
			return j, nil
		}
	}
}

// decide judges the ratios of the pairs so far.
func decide(ratios []float64, limit float64) judgment {
	j := judgment{outcome: undecided, ratio: stats.Median(ratios), pairs: len(ratios)}
	var known bool
	j.low, j.high, known = stats.MedianInterval(ratios, confidence)
	switch {
	case !known:
	case j.high <= limit:
		j.outcome = passed
	case j.low > limit:
		j.outcome = costsMore
	}
	return j
}
