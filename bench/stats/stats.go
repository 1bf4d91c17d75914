// Package stats is the little arithmetic that figures need: medians, quantiles
// and ratios of pairs.
package stats

import (
	"math"
	"slices"
)

// Median returns the middle of values, which it leaves as they are; the mean of
// the two in the middle if their number is even, NaN if there are none.
func Median(values []float64) float64 {
	if len(values) == 0 {
		return math.NaN()
	}
	s := slices.Sorted(slices.Values(values))
	mid := len(s) / 2
	if len(s)%2 == 1 {
		return s[mid]
	}
	return (s[mid-1] + s[mid]) / 2
}

// Quantile returns the smallest of values that a share q of them does not
// exceed, 0 if there are none. It sorts values.
func Quantile[T int64 | float64](values []T, q float64) T {
	if len(values) == 0 {
		return 0
	}
	slices.Sort(values)
	i := int(math.Ceil(q*float64(len(values)))) - 1
	return values[min(max(i, 0), len(values)-1)]
}

// A Ratio is what pairwise ratios came to.
type Ratio struct {
	Median, Min, Max float64
	// Pairs is how many there were. With none the rest is meaningless.
	Pairs int
}

// Ratios divides each of ours by the one of theirs that was measured beside it.
// Pairs in which either is not a positive number do not count.
func Ratios(ours, theirs []float64) Ratio {
	var r []float64
	for i := range min(len(ours), len(theirs)) {
		if ours[i] > 0 && theirs[i] > 0 && !math.IsInf(ours[i], 1) && !math.IsInf(theirs[i], 1) {
			r = append(r, ours[i]/theirs[i])
		}
	}
	if len(r) == 0 {
		return Ratio{}
	}
	return Ratio{Median: Median(r), Min: slices.Min(r), Max: slices.Max(r), Pairs: len(r)}
}
