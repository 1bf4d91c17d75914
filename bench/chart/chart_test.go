package chart

import (
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestChartsAreLabeledSVG(t *testing.T) {
	dir := t.TempDir()
	nan := math.NaN()
	bars, lines := filepath.Join(dir, "bars.svg"), filepath.Join(dir, "lines.svg")
	err := Bars(bars, "CPU", "ratio", []string{"bulk-down", "reqresp"}, []Series{
		{Name: "nginx", Values: []float64{0.7, 0.9}, Low: []float64{0.6, 0.8}, High: []float64{0.8, 1}},
		{Name: "stunnel", Values: []float64{nan, 0.3}, Low: []float64{nan, 0.2}, High: []float64{nan, 0.4}},
	}, 1)
	if err != nil {
		t.Fatal(err)
	}
	err = Lines(lines, "growth", "connections", "CPU µs", true, []float64{1, 100, 4000}, []Series{{Name: "nginx", Values: []float64{24, nan, 30}}})
	if err != nil {
		t.Fatal(err)
	}
	for path, wants := range map[string][]string{
		bars:  {"<svg", "bulk-down", "stunnel", "ratio"},
		lines: {"<svg", "connections", "nginx"},
	} {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, want := range wants {
			if !strings.Contains(string(text), want) {
				t.Errorf("%s lacks %q", filepath.Base(path), want)
			}
		}
		if strings.Contains(string(text), "NaN") {
			t.Errorf("%s draws what there is not", filepath.Base(path))
		}
	}
}
