// Package stats computes medians, quantiles and ratios of pairs.
//
// The caller owns the values; only Quantile modifies them.
package stats

import (
	"math"
	"slices"
)

// Median returns the middle of values, or the mean of the two middle values,
// or NaN for no values. It does not modify values.
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

// Quantile returns the q-quantile: the smallest value such that at least a
// share q of the values is not greater. It returns 0 for no values. It sorts
// values.
func Quantile[T int64 | float64](values []T, q float64) T {
	if len(values) == 0 {
		return 0
	}
	slices.Sort(values)
	i := int(math.Ceil(q*float64(len(values)))) - 1
	return values[min(max(i, 0), len(values)-1)]
}

// A Ratio summarizes pairwise ratios.
type Ratio struct {
	Median, Min, Max float64
	// Pairs is the number of pairs. The other fields are meaningless if it is 0.
	Pairs int
}

// Ratios divides each of our values by the peer's value with the same index. It ignores
// pairs in which either is not a positive number.
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

// MedianInterval returns a confidence interval for the median of the distribution from
// which the values were drawn, whatever the distribution. Its ends are values of equal
// rank from both ends. If there are too few values, it returns their range and false.
// It does not modify values.
func MedianInterval(values []float64, confidence float64) (low, high float64, ok bool) {
	n := len(values)
	if n == 0 {
		return math.NaN(), math.NaN(), false
	}
	s := slices.Sorted(slices.Values(values))
	// The number of values below the median is binomial. An interval without the k
	// least and the k greatest values misses the median if at most k values are on
	// one side of it.
	outside := 2 * math.Pow(0.5, float64(n))
	if outside > 1-confidence {
		return s[0], s[n-1], false
	}
	k, term := 0, outside
	for {
		term *= float64(n-k) / float64(k+1)
		if outside+term > 1-confidence {
			return s[k], s[n-1-k], true
		}
		outside += term
		k++
	}
}
