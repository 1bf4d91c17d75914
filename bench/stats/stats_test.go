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

func TestMedianInterval(t *testing.T) {
	values := func(n int) []float64 {
		v := make([]float64, n)
		for i := range v {
			v[n-1-i] = float64(i + 1)
		}
		return v
	}
	for _, c := range []struct {
		n          int
		confidence float64
		low, high  float64
		ok         bool
	}{
		// These values are from a table of the sign test.
		{5, 0.95, 1, 5, false},
		{6, 0.95, 1, 6, true},
		{8, 0.95, 1, 8, true},
		{9, 0.95, 2, 8, true},
		{20, 0.95, 6, 15, true},
		{7, 0.99, 1, 7, false},
		{8, 0.99, 1, 8, true},
		{40, 0.99, 12, 29, true},
	} {
		low, high, ok := MedianInterval(values(c.n), c.confidence)
		if low != c.low || high != c.high || ok != c.ok {
			t.Errorf("%d values, %v: %v to %v, %v; want %v to %v, %v", c.n, c.confidence, low, high, ok, c.low, c.high, c.ok)
		}
	}
	if _, _, ok := MedianInterval(nil, 0.95); ok {
		t.Error("there is an interval of nothing")
	}
}
