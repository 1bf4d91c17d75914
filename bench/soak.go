package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"time"

	"github.com/drawbridge-gateway/drawbridge/bench/soak"
)

// soakCommand is the argument that runs a soak.
const soakCommand = "soak"

// runSoak executes the command line of soakCommand.
func runSoak(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet(soakCommand, flag.ContinueOnError)
	o := soak.Options{Report: os.Stdout}
	flags.StringVar(&o.Binary, "drawbridge", "../bin/drawbridge", "`binary` to run")
	minutes := flags.Float64("minutes", 30, "duration of the load in `minutes`")
	flags.StringVar(&o.Plot, "plot", "soak.svg", "SVG `file` for memory, descriptors and goroutines")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if flags.NArg() > 0 || *minutes <= 0 {
		return errors.New("soak: -minutes must be more than 0; nothing else may be given")
	}
	o.Length = time.Duration(*minutes * float64(time.Minute))
	if err := soak.Run(ctx, o); err != nil {
		return fmt.Errorf("soak: %w", err)
	}
	return nil
}
