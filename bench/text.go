package main

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/drawbridge-gateway/drawbridge/bench/stats"
)

// writeJSON writes every measurement.
func (r *run) writeJSON(path string) error {
	data, err := json.MarshalIndent(r, "", " ")
	if err != nil {
		return err
	}
	return os.WriteFile(path, append(data, '\n'), 0o644)
}

// writeText writes the comparison as text.
func (r *run) writeText(out io.Writer) {
	fmt.Fprintf(out, "%s, %d cores, %s, %s, %s\n", r.Machine.CPU, r.Machine.Cores, r.Machine.System, r.Machine.Kernel, r.Machine.Go)
	for _, p := range r.Proxies {
		fmt.Fprintf(out, "%s: %s\n", p.Name, p.Version)
	}
	for _, m := range r.Missing {
		fmt.Fprintf(out, "left out: %s\n", m)
	}
	r.each(func(w row, res result) { r.writeRow(out, w, res) })
}

func (r *run) writeRow(out io.Writer, w row, res result) {
	fmt.Fprintf(out, "\n%s: %s\n", w.name, w.title)
	t := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	for _, cells := range r.table(w, res) {
		fmt.Fprintln(t, "  "+strings.Join(cells, "\t"))
	}
	_ = t.Flush()
	for _, name := range slices.Sorted(maps.Keys(res.Skipped)) {
		fmt.Fprintf(out, "  %s: %s\n", name, res.Skipped[name])
	}
	for _, f := range res.Faults {
		fmt.Fprintf(out, "  FAILED: %s\n", f)
	}
}

// table returns a heading and a line for each proxy, without empty columns.
func (r *run) table(w row, res result) [][]string {
	all := [][]string{slices.Concat([]string{"proxy", w.unit.name, w.unit.rate, "p50 ms", "p99 ms", "resumed"}, growColumns,
		[]string{r.Subject + " ÷ it", "p50 ÷ it", "target"})}
	for _, l := range r.lines(w, res) {
		cells := []string{l.proxy, short(l.figure), short(l.rate), short(l.p50), short(l.p99), percent(l.resumed)}
		for _, name := range growColumns {
			cells = append(cells, short(l.more[name]))
		}
		all = append(all, append(cells, ratioText(l.ratio), ratioText(l.p50Ratio), verdictText(l.verdicts)))
	}
	out := make([][]string, len(all))
	for column := range all[0] {
		empty := true
		for _, cells := range all[1:] {
			empty = empty && (cells[column] == "-" || cells[column] == "")
		}
		if empty {
			continue
		}
		for i, cells := range all {
			out[i] = append(out[i], cells[column])
		}
	}
	return out
}

// short formats a number with three digits or more, or "-" for NaN.
func short(f float64) string {
	switch {
	case f == 0:
		return "-"
	case f < 10:
		return fmt.Sprintf("%.2f", f)
	case f < 100:
		return fmt.Sprintf("%.1f", f)
	}
	return fmt.Sprintf("%.0f", f)
}

func percent(share float64) string {
	if share == 0 {
		return "-"
	}
	return fmt.Sprintf("%.0f%%", 100*share)
}

func ratioText(r stats.Ratio) string {
	if r.Pairs == 0 {
		return "-"
	}
	return fmt.Sprintf("%.2f (%.2f-%.2f)", r.Median, r.Min, r.Max)
}

func verdictText(v []verdict) string {
	var texts []string
	for _, v := range v {
		texts = append(texts, v.String())
	}
	return strings.Join(texts, ", ")
}
