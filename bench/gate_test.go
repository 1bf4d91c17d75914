package main

import (
	"bytes"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/drawbridge-gateway/drawbridge/bench/load"
	"github.com/drawbridge-gateway/drawbridge/bench/proxy"
)

func TestGateDecidesOnceTheIntervalIsOnOneSide(t *testing.T) {
	same := func(n int, ratio float64) []float64 { return slices.Repeat([]float64{ratio}, n) }
	for _, c := range []struct {
		name   string
		ratios []float64
		want   outcome
	}{
		{"equal", same(8, 1), passed},
		{"too few", same(7, 1), undecided},
		{"cheaper", same(8, 0.8), passed},
		{"more expensive", same(8, 1.2), costsMore},
		{"at the limit", same(8, 1.05), passed},
		{"one outlier of eight", append(same(7, 1), 3), undecided},
		{"one outlier of twelve", append(same(11, 1), 3), passed},
		{"noise around the limit", slices.Repeat([]float64{0.9, 1.2}, 20), undecided},
	} {
		if got := decide(c.ratios, 1.05); got.outcome != c.want {
			t.Errorf("%s: %v, want %s", c.name, got, c.want)
		}
	}
}

// The gate measures both programs, and fails for a row that it cannot decide.
func TestGateMeasuresPairs(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	var report bytes.Buffer
	g := &gate{
		options: &options{
			rows:   []row{{name: "echo", work: work{load: load.Echo(4, 64), workers: 4}, unit: perMessage}},
			warmUp: time.Millisecond, length: time.Second, // on a busy machine a proxy may get no processor for a while
		},
		base: proxy.IOCopy{Program: self}, next: proxy.IOCopy{Program: self},
		limit: 1.05, maxPairs: 2, report: &report,
	}
	err = g.run(t.Context())
	if err == nil || !strings.Contains(err.Error(), "echo did not pass") {
		t.Errorf("two pairs: %v", err)
	}
	if !strings.Contains(report.String(), "UNDECIDED") || !strings.Contains(report.String(), "2 pairs") {
		t.Errorf("the report: %s", &report)
	}
}

func TestGateRefusesBadOptions(t *testing.T) {
	for _, args := range [][]string{
		{}, {"-base", "a", "-limit", "0"}, {"-base", "a", "-pairs", "0"}, {"-base", "a", "-seconds", "0"}, {"-base", "a", "more"}, {"-base", "a", "-rows", "none"},
	} {
		if _, err := parseGate(args); err == nil {
			t.Errorf("%q is accepted", args)
		}
	}
	g, err := parseGate([]string{"-base", "a", "-limit", "10"})
	if err != nil || g.limit != 1.1 || len(g.options.rows) != 7 {
		t.Errorf("%+v, %v", g, err)
	}
}
