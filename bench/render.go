package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/drawbridge-gateway/drawbridge/bench/chart"
)

// renderCommand is the argument that makes this program write a report.
const renderCommand = "render"

// render writes RESULTS.md and its plots from the JSON files of one or more
// runs, because a long run may be split.
func render(args []string) error {
	flags := flag.NewFlagSet(renderCommand, flag.ContinueOnError)
	dir := flags.String("dir", ".", "`directory` to write RESULTS.md and plots to")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if flags.NArg() == 0 {
		return errors.New("no input: name the JSON files of the runs to render")
	}
	var runs []*run
	for _, path := range flags.Args() {
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		r := new(run)
		if err := json.Unmarshal(data, r); err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		runs = append(runs, r)
	}
	all, err := merge(runs)
	if err != nil {
		return err
	}
	plots := filepath.Join(*dir, "plots")
	if err := os.MkdirAll(plots, 0o755); err != nil {
		return err
	}
	drawn, err := all.draw(plots)
	if err != nil {
		return err
	}
	var text bytes.Buffer
	all.writeMarkdown(&text, runs, drawn)
	return os.WriteFile(filepath.Join(*dir, "RESULTS.md"), text.Bytes(), 0o644)
}

// merge combines several runs on one machine with the same peers. If several
// contain a row, the last one applies.
func merge(runs []*run) (*run, error) {
	all := *runs[0]
	all.Rows, all.Proxies, all.Missing = nil, nil, nil
	for _, r := range runs {
		if r.Machine != all.Machine || r.Subject != all.Subject {
			return nil, errors.New("the runs are from different machines, or have different peers")
		}
		for _, p := range r.Proxies {
			i := slices.IndexFunc(all.Proxies, func(q proxyInfo) bool { return q.Name == p.Name })
			if i < 0 {
				all.Proxies = append(all.Proxies, p)
			} else if p.Name != all.Subject && all.Proxies[i] != p {
				return nil, fmt.Errorf("the runs are of different versions of %s", p.Name)
			}
		}
		for _, res := range r.Rows {
			all.Rows = slices.DeleteFunc(all.Rows, func(old result) bool { return old.Row == res.Row })
			all.Rows = append(all.Rows, res)
		}
	}
	for _, w := range slices.Backward(rows) { // keep the order of the rows
		if i := slices.IndexFunc(all.Rows, func(res result) bool { return res.Row == w.name }); i > 0 {
			res := all.Rows[i]
			all.Rows = slices.Insert(slices.Delete(all.Rows, i, i+1), 0, res)
		}
	}
	return &all, nil
}

// each calls f for every measured row.
func (r *run) each(f func(w row, res result)) {
	for _, res := range r.Rows {
		if i := slices.IndexFunc(rows, func(w row) bool { return w.name == res.Row }); i >= 0 {
			f(rows[i], res)
		}
	}
}

func (r *run) writeMarkdown(out io.Writer, runs []*run, plots []string) {
	fmt.Fprintf(out, `# Results

Written by `+"`bench render`"+` from the runs below; [README.md](README.md) says how it is measured. Each ratio is the median
of the pairs, with the least and the greatest; below 1.00 %s used less.

- machine: %s, %d cores, %s, %s
- built with: %s
`, r.Subject, r.Machine.CPU, r.Machine.Cores, r.Machine.System, r.Machine.Kernel, r.Machine.Go)
	for _, p := range r.Proxies {
		if p.Name != r.Subject { // each run has its own version of the subject
			fmt.Fprintf(out, "- %s: %s\n", p.Name, p.Version)
		}
	}
	fmt.Fprint(out, "\nThe runs, in UTC:\n\n")
	for _, piece := range runs {
		fmt.Fprintf(out, "    %s  %s\n        bench %s\n", piece.Date.Format("2006-01-02 15:04"), piece.subjectVersion(), quoted(piece.Command))
	}
	fmt.Fprint(out, "\n## Targets\n\n| row | target | measured | |\n|---|---|---|---|\n")
	r.each(func(w row, res result) {
		for _, l := range r.lines(w, res) {
			for _, v := range l.verdicts {
				met := "met"
				if !v.met {
					met = "**missed**"
				}
				name := v.text
				if l.proxy != r.Subject {
					name += " × " + l.proxy
				}
				fmt.Fprintf(out, "| `%s` | %s | %s | %s |\n", w.name, name, v.measured, met)
			}
		}
	})
	for _, file := range plots {
		fmt.Fprintf(out, "\n![%s](plots/%s)\n", strings.TrimSuffix(file, ".svg"), file)
	}
	fmt.Fprint(out, "\n## Rows\n")
	r.each(func(w row, res result) {
		fmt.Fprintf(out, "\n### %s\n\n%s\n\n", w.name, w.title)
		for i, cells := range r.table(w, res) {
			fmt.Fprintf(out, "| %s |\n", strings.Join(cells, " | "))
			if i == 0 {
				fmt.Fprintf(out, "|%s\n", strings.Repeat("---|", len(cells)))
			}
		}
		for _, f := range res.Faults {
			fmt.Fprintf(out, "\n**FAILED**: %s\n", f)
		}
	})
}

func (r *run) subjectVersion() string {
	for _, p := range r.Proxies {
		if p.Name == r.Subject {
			return p.Version
		}
	}
	return "unknown"
}

// quoted formats a command line for a shell.
func quoted(args []string) string {
	out := make([]string, len(args))
	for i, a := range args {
		if out[i] = a; strings.ContainsAny(a, "* '\"") || a == "" {
			out[i] = "'" + a + "'"
		}
	}
	return strings.Join(out, " ")
}

// draw writes all plots into dir, and returns the names of the files.
func (r *run) draw(dir string) ([]string, error) {
	var drawn []string
	var errs []error
	add := func(name string, draw func(path string) error) {
		if err := draw(filepath.Join(dir, name)); err != nil {
			errs = append(errs, err)
			return
		}
		drawn = append(drawn, name)
	}
	var work, idle, latency []string // names of rows
	r.each(func(w row, res result) {
		switch {
		case w.group != "":
		case w.unit == perIdle:
			idle = append(idle, w.name)
		default:
			work = append(work, w.name)
			if slices.ContainsFunc(r.lines(w, res), func(l line) bool { return l.p50 > 0 }) && w.unit != perGiB {
				latency = append(latency, w.name)
			}
		}
	})
	if len(work) > 0 {
		add("cpu.svg", func(path string) error {
			return chart.Bars(path, "CPU for the same work, "+r.Subject+" divided by each", "ratio", work, r.series(work, func(l line) [3]float64 {
				if l.ratio.Pairs == 0 {
					return none
				}
				return [3]float64{l.ratio.Median, l.ratio.Min, l.ratio.Max}
			}), 1)
		})
	}
	if len(idle) > 0 {
		add("idle.svg", func(path string) error {
			return chart.Bars(path, "Memory of an idle connection", "KiB", idle, r.series(idle, func(l line) [3]float64 {
				return [3]float64{l.figure, math.NaN(), math.NaN()}
			}), 0)
		})
	}
	if len(latency) > 0 {
		add("latency.svg", func(path string) error {
			return chart.Bars(path, "Latency: median, and up to the 99th percentile", "ms", latency, r.series(latency, func(l line) [3]float64 {
				if l.p50 == 0 {
					return none
				}
				return [3]float64{l.p50, l.p50, l.p99}
			}), 0)
		})
	}
	for _, g := range groups {
		if names, x := r.group(g); len(names) > 1 {
			add(g.name+".svg", func(path string) error {
				return chart.Lines(path, g.title, g.x, g.y, g.logY, x, g.series(r, names))
			})
		}
	}
	return drawn, errors.Join(errs...)
}

// none is a missing bar.
var none = [3]float64{math.NaN(), math.NaN(), math.NaN()}

// series returns one series for each proxy: a value with its low and high for
// each row. It omits a proxy without values.
func (r *run) series(names []string, of func(line) [3]float64) []chart.Series {
	var out []chart.Series
	for i, p := range r.Proxies {
		s := chart.Series{Name: p.Name, Color: i}
		found := false
		for _, name := range names {
			v := none
			r.each(func(w row, res result) {
				if w.name != name {
					return
				}
				for _, l := range r.lines(w, res) {
					if l.proxy == p.Name {
						v = of(l)
					}
				}
			})
			found = found || !math.IsNaN(v[0])
			s.Values, s.Low, s.High = append(s.Values, v[0]), append(s.Low, v[1]), append(s.High, v[2])
		}
		if found {
			out = append(out, s)
		}
	}
	return out
}
