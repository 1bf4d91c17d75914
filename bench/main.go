package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/drawbridge-gateway/drawbridge/bench/proxy"
)

func main() {
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer cancel()
	command, args := "", os.Args[1:]
	if len(args) > 0 && commands[args[0]] != nil {
		command, args = args[0], args[1:]
	}
	exit(commands[command](ctx, args))
}

// commands execute command lines, each by its first argument.
var commands = map[string]func(ctx context.Context, args []string) error{
	"":                  bench,
	commitsCommand:      runCommits,
	gateCommand:         runGate,
	growthCommand:       runGrowth,
	scaleCommand:        runScale,
	soakCommand:         runSoak,
	tailsCommand:        runTails,
	renderCommand:       func(_ context.Context, args []string) error { return render(args) },
	flamesCommand:       func(_ context.Context, args []string) error { return drawFlames(args, os.Stdout) },
	pgoCommand:          func(_ context.Context, args []string) error { return writePGO(args) },
	proxy.IOCopyCommand: func(_ context.Context, args []string) error { return proxy.ServeIOCopy(args) },
	proxy.FloorCommand:  func(_ context.Context, args []string) error { return proxy.ServeFloor(args) },
}

func exit(err error) {
	if err == nil || errors.Is(err, flag.ErrHelp) {
		os.Exit(0)
	}
	fmt.Fprintln(os.Stderr, "bench:", err)
	os.Exit(1)
}

// bench executes the command line.
func bench(ctx context.Context, args []string) error {
	o, err := parseOptions(args)
	if err != nil {
		return err
	}
	run, err := o.run(ctx, os.Stderr)
	if run == nil {
		return err
	}
	// Show the results even if a row failed or the run was interrupted.
	run.writeText(os.Stdout)
	if o.json != "" {
		err = errors.Join(err, run.writeJSON(o.json))
	}
	return errors.Join(err, run.failed())
}
