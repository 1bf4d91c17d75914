package upstream

import (
	"math/bits"
	"sync/atomic"
)

// Weighted is a value and its share relative to the others.
type Weighted[T any] struct {
	Value  T
	Weight int // 0 or less: no traffic, unless it is the only value
}

// A Split chooses values by weight, evenly spread: after any number of choices,
// each value has had its share, give or take a few. It takes no lock and
// allocates nothing; all methods may be called concurrently. A nil Split is
// empty.
type Split[T any] struct {
	values []T
	upTo   []uint64 // running sums of the weights
	total  uint64
	picks  atomic.Uint64
}

// NewSplit returns a Split of things.
func NewSplit[T any](things []Weighted[T]) *Split[T] {
	s := &Split[T]{}
	for _, t := range things {
		if t.Weight <= 0 && len(things) > 1 {
			continue
		}
		s.total += uint64(max(t.Weight, 1))
		s.values = append(s.values, t.Value)
		s.upTo = append(s.upTo, s.total)
	}
	return s
}

// Pick chooses a value, or returns the zero T if no value takes traffic.
func (s *Split[T]) Pick() T {
	if s == nil || len(s.values) == 0 {
		var none T
		return none
	}
	if len(s.values) == 1 {
		return s.values[0]
	}
	// Multiples of the golden ratio, modulo one, fill the unit interval more
	// evenly than any other sequence that needs only a counter (Knuth, TAOCP
	// 3, 6.4). Here the interval is 2^64, scaled to the sum of the weights.
	const golden = 0x9E3779B97F4A7C15
	at, _ := bits.Mul64((s.picks.Add(1)-1)*golden, s.total)
	for i, upTo := range s.upTo {
		if at < upTo {
			return s.values[i]
		}
	}
	panic("unreachable: at < total")
}

// Values returns the values that take traffic, in the given order.
func (s *Split[T]) Values() []T {
	if s == nil {
		return nil
	}
	return s.values
}
