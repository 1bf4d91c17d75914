package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"time"

	"github.com/drawbridge-gateway/drawbridge/bench/scale"
)

// scaleCommand is the argument that measures a gateway with a large state.
const scaleCommand = "scale"

// runScale executes the command line of scaleCommand.
func runScale(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet(scaleCommand, flag.ContinueOnError)
	o := scale.Options{Report: os.Stdout}
	flags.StringVar(&o.Binary, "drawbridge", "../bin/drawbridge", "`binary` of Drawbridge")
	flags.IntVar(&o.N, "n", 10_000, "`resources` of each kind")
	flags.IntVar(&o.Writes, "writes", 40, "`writes` of each row")
	idle := flags.Float64("idle", 30, "`seconds` that the idle process is measured")
	watch := flags.Float64("watch", 120, "`seconds` that the process is measured while it watches files; it looks at them every minute")
	flags.BoolVar(&o.Alone, "alone", false, "give the gateway a real-time priority, as if nothing else ran on the machine; needs CAP_SYS_NICE")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if flags.NArg() > 0 || o.N < 100 || o.Writes < 1 || o.Writes > o.N || *idle <= 0 || *watch <= 0 {
		return fmt.Errorf("scale: -n must be at least 100, -writes between 1 and -n, -idle and -watch more than 0, and nothing else may be given")
	}
	o.Idle, o.Watch = time.Duration(*idle*float64(time.Second)), time.Duration(*watch*float64(time.Second))
	return scale.Run(ctx, o)
}
