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
	if len(os.Args) > 1 && os.Args[1] == proxy.IOCopyCommand {
		exit(proxy.ServeIOCopy(os.Args[2:]))
	}
	if len(os.Args) > 1 && os.Args[1] == proxy.FloorCommand {
		exit(proxy.ServeFloor(os.Args[2:]))
	}
	if len(os.Args) > 1 && os.Args[1] == renderCommand {
		exit(render(os.Args[2:]))
	}
	if len(os.Args) > 1 && os.Args[1] == pgoCommand {
		exit(writePGO(os.Args[2:]))
	}
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer cancel()
	if len(os.Args) > 1 && os.Args[1] == scaleCommand {
		exit(runScale(ctx, os.Args[2:]))
	}
	if len(os.Args) > 1 && os.Args[1] == gateCommand {
		exit(runGate(ctx, os.Args[2:]))
	}
	if len(os.Args) > 1 && os.Args[1] == commitsCommand {
		exit(runCommits(ctx, os.Args[2:]))
	}
	exit(bench(ctx, os.Args[1:]))
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
