package scale

import (
	"math"
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
	g := growth{sizes: []int{100, 1000}, figures: map[string]map[int]float64{}}
	g.add("memory", 100, 2)
	g.add("memory", 1000, 20)
	var out strings.Builder
	if err := g.write(&out); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(out.String(), "memory") || !strings.HasSuffix(out.String(), "2.00      20.00       1.00\n") {
		t.Errorf("%s", out.String())
	}
}
