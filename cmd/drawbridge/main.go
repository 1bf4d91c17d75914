// Command drawbridge runs the gateway and is its command-line client.
//
// Each subcommand has its own file or package. Other packages below contain code that
// several subcommands share.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/drawbridge-gateway/drawbridge/cmd/drawbridge/command"
	"github.com/drawbridge-gateway/drawbridge/cmd/drawbridge/exit"
	"github.com/drawbridge-gateway/drawbridge/cmd/drawbridge/upgrade"
	"github.com/drawbridge-gateway/drawbridge/gateway/handover"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	// The first signal starts a graceful stop. A second one then has its default effect:
	// the process ends at once.
	context.AfterFunc(ctx, stop)

	predecessor, err := handover.Inherit()
	if err != nil {
		fmt.Fprintln(os.Stderr, "Error:", err)
		os.Exit(exit.Usage)
	}
	program := handover.Program{Args: os.Args[1:], Stdout: os.Stdout, Stderr: os.Stderr}
	if program.Path, err = upgrade.ProgramPath(os.Args[0]); err != nil {
		program.Path = os.Args[0]
	}
	c := &cli{program: program, predecessor: predecessor, ownsProcess: true, Env: &command.Env{In: os.Stdin, Out: os.Stdout, Err: os.Stderr, LookupEnv: os.LookupEnv, UID: os.Geteuid(), Program: os.Args[0], Version: programVersion()}}
	os.Exit(c.run(ctx, os.Args[1:]))
}
