// Command drawbridge runs the gateway and is its command-line client.
//
// Each subcommand has a file of its own; this one only dispatches.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	// The first signal starts a graceful stop. A second one then has its default effect:
	// the process ends at once.
	context.AfterFunc(ctx, stop)

	c := &cli{in: os.Stdin, out: os.Stdout, err: os.Stderr, lookupEnv: os.LookupEnv, uid: os.Geteuid(), program: os.Args[0]}
	os.Exit(c.run(ctx, os.Args[1:]))
}
