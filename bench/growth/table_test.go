package growth

import (
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestSlopesAreExponentsOfGrowth(t *testing.T) {
	sizes := []int{100, 1000, 10000}
	for _, tt := range []struct {
		figures map[int]float64
		want    float64
	}{
		{map[int]float64{100: 5, 1000: 50, 10000: 500}, 1},
		{map[int]float64{100: 7, 1000: 7, 10000: 7}, 0},
		{map[int]float64{100: 1, 1000: 100, 10000: 10000}, 2},
		{map[int]float64{100: 0, 1000: 3, 10000: 30}, 1},
		{map[int]float64{10000: 30}, 0},
	} {
		if got := slope(sizes, tt.figures); math.Abs(got-tt.want) > 1e-9 {
			t.Errorf("%v: %v, want %v", tt.figures, got, tt.want)
		}
	}
}

func TestGrowthIsATable(t *testing.T) {
	table := NewTable("resources", []int{10, 100, 1000})
	table.Add("memory", 10, 2)
	table.Add("memory", 100, 2)
	table.Add("memory", 1000, 200)
	table.Add("start", 1000, 3)
	var out strings.Builder
	if err := table.Write(&out); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"resources ", "slope  last step\n", " 2.00       2.00     200.00       1.00       2.00\n", " -          -       3.00       0.00       0.00\n",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in\n%s", want, out.String())
		}
	}
	plot := filepath.Join(t.TempDir(), "plot.svg")
	if err := table.Draw(plot, "Growth", "memory", "start", "absent"); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(plot)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"memory: slope 1.00", "start: slope 0.00"} {
		if !strings.Contains(string(text), want) {
			t.Errorf("the plot lacks %q", want)
		}
	}
}
