// Command drawbridge is the gateway and everything that talks to it.
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
	// The first signal asks for a clean end. From then on a second one has
	// its usual effect: the process ends at once.
	context.AfterFunc(ctx, stop)

	c := &cli{in: os.Stdin, out: os.Stdout, err: os.Stderr, lookupEnv: os.LookupEnv, uid: os.Geteuid(), program: os.Args[0]}
	os.Exit(c.run(ctx, os.Args[1:]))
}
