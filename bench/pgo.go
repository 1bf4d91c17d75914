package main

import (
	"errors"
	"flag"
	"fmt"
	"os"

	"github.com/google/pprof/profile"
)

// pgoCommand is the command that merges CPU profiles into one for the compiler.
const pgoCommand = "pgo"

// writePGO executes the command line of pgoCommand.
func writePGO(args []string) error {
	flags := flag.NewFlagSet("bench "+pgoCommand, flag.ContinueOnError)
	out := flags.String("out", "", "`file` to write")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if *out == "" {
		return errors.New("-out FILE is missing")
	}
	merged, err := mergeProfiles(flags.Args())
	if err != nil {
		return err
	}
	file, err := os.Create(*out)
	if err != nil {
		return err
	}
	return errors.Join(merged.Write(file), file.Close())
}

// mergeProfiles merges profiles. The result contains only the data that the
// compiler reads: functions and lines, but no addresses, and no names of files
// or binaries.
func mergeProfiles(paths []string) (*profile.Profile, error) {
	if len(paths) == 0 {
		return nil, errors.New("no profiles to merge")
	}
	var all []*profile.Profile
	for _, path := range paths {
		p, err := readProfile(path)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		all = append(all, p)
	}
	return profile.Merge(all)
}

func readProfile(path string) (*profile.Profile, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	p, err := profile.Parse(file)
	if err != nil {
		return nil, err
	}
	p.Mapping, p.TimeNanos = nil, 0
	for _, l := range p.Location {
		l.Mapping = nil
	}
	for _, s := range p.Sample {
		s.Label, s.NumLabel, s.NumUnit = nil, nil, nil
	}
	const inlined, functions, files, lines, columns, addresses = true, true, false, true, false, false
	return p, p.Aggregate(inlined, functions, files, lines, columns, addresses)
}
