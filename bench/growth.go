package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/drawbridge-gateway/drawbridge/bench/growth"
	"github.com/drawbridge-gateway/drawbridge/bench/scale"
)

// growthCommand is the argument that prints how the costs of a gateway grow.
const growthCommand = "growth"

// mostConns is the greatest number of idle connections, if there are enough descriptors.
const mostConns = 16_000

// runGrowth executes the command line of growthCommand.
func runGrowth(ctx context.Context, args []string) error {
	most, err := growth.MostConns(mostConns)
	if err != nil {
		return err
	}
	flags := flag.NewFlagSet(growthCommand, flag.ContinueOnError)
	o := growth.Options{
		Report: os.Stdout, Conns: connsUpTo(most), Sizes: []int{10, 100, 1000, 10_000},
		Silence: 5 * time.Second, Settle: 2 * time.Minute, Changing: []int{1000, 2000, 3000, 4000, 5000, 6000}, Routes: 1000, Every: 10 * time.Millisecond,
	}
	kinds := scale.GrowthOptions{Options: scale.Options{Report: os.Stdout, Idle: time.Minute}, Sizes: []int{100, 1000, 10_000}}
	flags.StringVar(&o.Binary, "drawbridge", "../bin/drawbridge", "`binary` of Drawbridge")
	flags.StringVar(&o.Plots, "plots", "", "`directory` for the plots; it must exist")
	flags.IntVar(&o.Writes, "writes", 100, "`writes` of each size")
	flags.DurationVar(&o.Load, "load", 3*time.Second, "length of each load")
	flags.BoolVar(&o.Alone, "alone", false, "as for scale")
	sizes := func(to *[]int) func(string) error {
		return func(text string) (err error) {
			*to, err = parseSizes(text)
			return err
		}
	}
	flags.Func("conns", "numbers of idle `connections`, ascending and comma separated", sizes(&o.Conns))
	flags.Func("sizes", "numbers of `routes` and certificates", sizes(&o.Sizes))
	flags.Func("revisions", "numbers of `revisions` after which their part reports", sizes(&o.Changing))
	names := flags.String("parts", "connections,routes,certificates,revisions,kinds", "`parts` to measure; kinds grows all kinds of resources together, as in scale")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if flags.NArg() > 0 || o.Writes < 1 || o.Load <= 0 {
		return fmt.Errorf("growth: -writes must be at least 1, -load more than 0, and nothing else may be given")
	}
	kinds.Binary, kinds.Alone, kinds.Writes = o.Binary, o.Alone, o.Writes
	parts := map[string]func() error{
		"connections":  func() error { return growth.Connections(ctx, o) },
		"routes":       func() error { return growth.Routes(ctx, o) },
		"certificates": func() error { return growth.Certificates(ctx, o) },
		"revisions":    func() error { return growth.Revisions(ctx, o) },
		"kinds":        func() error { return scale.Growth(ctx, kinds) },
	}
	chosen := strings.Split(*names, ",")
	for _, name := range chosen {
		if parts[name] == nil {
			return fmt.Errorf("growth: no part %q", name)
		}
	}
	for _, name := range chosen {
		if err := parts[name](); err != nil {
			return fmt.Errorf("growth of %s: %w", name, err)
		}
	}
	return nil
}

// connsUpTo returns numbers of connections of which the last is most.
func connsUpTo(most int) []int {
	conns := []int{1, 10, 100, 1000, 4000}
	for len(conns) > 0 && conns[len(conns)-1] >= most {
		conns = conns[:len(conns)-1]
	}
	return append(conns, most)
}

// parseSizes reads ascending numbers.
func parseSizes(text string) (sizes []int, err error) {
	for part := range strings.SplitSeq(text, ",") {
		n, err := strconv.Atoi(part)
		if err != nil || n < 1 {
			return nil, fmt.Errorf("%q is no number above 0", part)
		}
		sizes = append(sizes, n)
	}
	if len(slices.Compact(slices.Clone(sizes))) < len(sizes) || !slices.IsSorted(sizes) {
		return nil, fmt.Errorf("%q does not ascend", text)
	}
	return sizes, nil
}
