package stats

import (
	"math"
	"testing"
)

func TestTheMedianIsTheMiddle(t *testing.T) {
	for _, c := range []struct {
		values []float64
		want   float64
	}{
		{[]float64{3}, 3},
		{[]float64{9, 1, 2}, 2},
		{[]float64{4, 1, 3, 2}, 2.5},
	} {
		if got := Median(c.values); got != c.want {
			t.Errorf("of %v it is %v, want %v", c.values, got, c.want)
		}
	}
	if !math.IsNaN(Median(nil)) {
		t.Error("there is a median of nothing")
	}
	values := []float64{2, 1}
	if Median(values); values[0] != 2 {
		t.Error("the values were sorted")
	}
}

func TestAQuantileIsOneOfTheValues(t *testing.T) {
	values := make([]int64, 100)
	for i := range values {
		values[99-i] = int64(i + 1)
	}
	for q, want := range map[float64]int64{0: 1, 0.01: 1, 0.5: 50, 0.99: 99, 1: 100} {
		if got := Quantile(values, q); got != want {
			t.Errorf("the quantile %v of 1 to 100 is %d, want %d", q, got, want)
		}
	}
	if got := Quantile([]int64(nil), 0.5); got != 0 {
		t.Errorf("a quantile of nothing is %d", got)
	}
}

func TestRatiosPairMeasurementsMadeSideBySide(t *testing.T) {
	got := Ratios([]float64{1, 20, 3}, []float64{2, 10, 3})
	if want := (Ratio{Median: 1, Min: 0.5, Max: 2, Pairs: 3}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	got = Ratios([]float64{1, 0, math.NaN(), 5}, []float64{2, 1, 1, 0, 7})
	if want := (Ratio{Median: 0.5, Min: 0.5, Max: 0.5, Pairs: 1}); got != want {
		t.Errorf("with pairs that say nothing: got %+v, want %+v", got, want)
	}
	if got := Ratios(nil, nil); got.Pairs != 0 {
		t.Errorf("of nothing: %+v", got)
	}
}
