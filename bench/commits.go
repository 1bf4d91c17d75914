package main

import (
	"context"
	"flag"
	"fmt"
	"os"

	"github.com/drawbridge-gateway/drawbridge/bench/commits"
)

// commitsCommand is the argument that measures commits to the store.
const commitsCommand = "commits"

// runCommits executes the command line of commitsCommand.
func runCommits(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet(commitsCommand, flag.ContinueOnError)
	o := commits.Options{Report: os.Stdout}
	flags.StringVar(&o.Dir, "dir", "", "`directory` on the disk to measure; empty: the one for temporary files")
	flags.IntVar(&o.Resources, "n", 1000, "`resources` in each store")
	flags.IntVar(&o.Commits, "commits", 1000, "`commits` to each store")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if flags.NArg() > 0 || o.Resources < 1 || o.Commits < 1 {
		return fmt.Errorf("%s: -n and -commits must be at least 1, and nothing else may be given", commitsCommand)
	}
	return commits.Run(ctx, o)
}
