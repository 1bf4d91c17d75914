package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"

	"github.com/google/pprof/profile"

	"github.com/drawbridge-gateway/drawbridge/bench/flame"
)

// flamesCommand is the command that draws a flame graph for each row of a run with -profiles.
const flamesCommand = "flames"

// profileName matches the names that hold gives to profiles. Its group is the row.
var profileName = regexp.MustCompile(`^[^-]+-(.+)-\d+\.pprof$`)

// drawFlames executes the command line of flamesCommand.
func drawFlames(args []string, report io.Writer) error {
	flags := flag.NewFlagSet("bench "+flamesCommand, flag.ContinueOnError)
	dir := flags.String("dir", "flames", "`directory` to write ROW.svg to, for each row")
	if err := flags.Parse(args); err != nil {
		return err
	}
	profiles := map[string][]string{}
	for _, path := range flags.Args() {
		match := profileName.FindStringSubmatch(filepath.Base(path))
		if match == nil {
			return fmt.Errorf("%s: the name must be PROXY-ROW-NUMBER.pprof, as -profiles writes it", path)
		}
		profiles[match[1]] = append(profiles[match[1]], path)
	}
	if len(profiles) == 0 {
		return errors.New("no profiles to draw")
	}
	if err := os.MkdirAll(*dir, 0o755); err != nil {
		return err
	}
	for _, row := range slices.Sorted(maps.Keys(profiles)) {
		merged, err := mergeProfiles(profiles[row])
		if err != nil {
			return err
		}
		if err := drawFlame(filepath.Join(*dir, row+".svg"), row, merged); err != nil {
			return fmt.Errorf("%s: %w", row, err)
		}
		printShares(report, row, merged)
	}
	return nil
}

func drawFlame(path, row string, p *profile.Profile) error {
	file, err := os.Create(path)
	if err != nil {
		return err
	}
	return errors.Join(flame.Draw(file, "CPU time of the gateway in the row "+row, p), file.Close())
}

// printShares prints whose code took which share of the CPU time.
func printShares(report io.Writer, row string, p *profile.Profile) {
	line := fmt.Sprintf("%-16s", row)
	for owner, share := range flame.Shares(p) {
		line += fmt.Sprintf("  %s %2.0f %%", flame.Owner(owner), 100*share)
	}
	fmt.Fprintln(report, line)
}
