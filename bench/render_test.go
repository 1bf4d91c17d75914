package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// piece returns a run with results for some rows.
func piece(rows ...result) *run {
	return &run{
		Date: time.Date(2026, 1, 2, 3, 4, 0, 0, time.UTC), Command: []string{"-rows", "bulk*"}, Subject: "drawbridge",
		Proxies: []proxyInfo{{"drawbridge", "drawbridge 1"}, {"nginx", "nginx 1"}}, Rows: rows,
	}
}

func measured(row string, ours, theirs float64) result {
	s := func(figure float64) []sample {
		return []sample{{Figure: figure, Units: 10, Wall: 1, P50: figure, P99: 2 * figure}}
	}
	return result{Row: row, Samples: map[string][]sample{"drawbridge": s(ours), "nginx": s(theirs)}}
}

func TestAReportCombinesSeveralRuns(t *testing.T) {
	dir := t.TempDir()
	var paths []string
	for name, r := range map[string]*run{
		"1.json": piece(measured("reqresp", 9e-6, 1e-5), measured("bulk-down", 9e-10, 1e-9), measured("growth-conns-1", 3e-5, 2e-5)),
		"2.json": piece(measured("bulk-down", 6e-10, 1e-9), measured("growth-conns-100", 3e-5, 2e-5), measured("idle-4000", 15<<10, 50<<10)),
	} {
		path := filepath.Join(dir, name)
		if err := r.writeJSON(path); err != nil {
			t.Fatal(err)
		}
		paths = append(paths, path)
	}
	if paths[0] > paths[1] {
		paths[0], paths[1] = paths[1], paths[0]
	}
	if err := render(append([]string{"-dir", dir}, paths...)); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(filepath.Join(dir, "RESULTS.md"))
	if err != nil {
		t.Fatal(err)
	}
	text := string(data)
	for _, want := range []string{
		"| `bulk-down` | ≤ 0.70 × nginx | 0.60 (0.60-0.60) | met |", // from the later run
		"| `reqresp` | ≤ 0.95 × nginx | 0.90 (0.90-0.90) | met |",
		"| `idle-4000` | ≤ 20 KiB/connection | 15.0 | met |",
		"bench -rows 'bulk*'", "2026-01-02 03:04  drawbridge 1", "- nginx: nginx 1", "plots/cpu.svg", "plots/idle.svg", "plots/growth-conns.svg",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("it lacks %q:\n%s", want, text)
		}
	}
	if strings.Index(text, "### bulk-down") > strings.Index(text, "### reqresp") {
		t.Error("rows are not in their order")
	}
	for _, plot := range []string{"cpu.svg", "idle.svg", "latency.svg", "growth-conns.svg"} {
		if _, err := os.Stat(filepath.Join(dir, "plots", plot)); err != nil {
			t.Error(err)
		}
	}
}

func TestDifferentRunsAreNotCombined(t *testing.T) {
	other := piece()
	other.Machine.Cores = 64
	newer := piece()
	newer.Proxies[1].Version = "nginx 2"
	for _, r := range []*run{other, newer} {
		if _, err := merge([]*run{piece(), r}); err == nil {
			t.Errorf("%+v was mixed with another", r)
		}
	}
}
