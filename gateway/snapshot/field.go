package snapshot

import (
	"math"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/drawbridge-gateway/drawbridge/gateway/invalid"
)

// maxWait bounds every configured wait: a longer one is a wrong unit.
const maxWait = 30 * 24 * time.Hour

// duration checks a wait. It returns 0, which means the default, if it is left out.
func (s *scope) duration(p invalid.Path, d *durationpb.Duration) time.Duration {
	if d == nil {
		return 0
	}
	if err := d.CheckValid(); err != nil {
		s.Add(p, "is not a valid duration; write seconds, such as \"2.5s\"")
		return 0
	}
	v := d.AsDuration()
	if v <= 0 || v > maxWait {
		s.Add(p, "is %v; it must be more than 0 and at most 720h (leave it out for the default)", v)
		return 0
	}
	return v
}

// age checks the maximum age of connections. It returns 0, which means no limit, if it is
// left out.
func (s *scope) age(p invalid.Path, d *durationpb.Duration) time.Duration {
	age := s.duration(p, d)
	if age > 0 && age < time.Second {
		s.Add(p, "is %v; it must be at least 1s, or connections would be closed as soon as they are made", age)
	}
	return age
}

// maxWeight is the largest weight of an endpoint or upstream.
const maxWeight = math.MaxUint16

// limit checks a count against a bound.
func (s *scope) limit(p invalid.Path, n, most int32) int {
	if n > most {
		s.Add(p, "is %d; it must be at most %d", n, most)
		return 0
	}
	return int(n)
}

// count checks a count that must be at least 1 if it is set. It returns 0,
// which means the default, if it is not.
func (s *scope) count(p invalid.Path, n *int32, most int32) int {
	if n == nil {
		return 0
	}
	if *n < 1 {
		s.Add(p, "is %d; it must be at least 1 (leave it out for the default)", *n)
	}
	return s.limit(p, *n, most)
}

// countOrOff checks a count where 0 disables the feature. It returns -1 for 0, and 0,
// which means the default, if the count is left out.
func (s *scope) countOrOff(p invalid.Path, n *int32, most int32) int {
	switch {
	case n == nil:
		return 0
	case *n == 0:
		return -1
	}
	return s.limit(p, *n, most)
}

// enum reports whether a number is one of the enum's values. The scope has already
// reported any other number (wellformed.Check).
func enum[E ~int32](v E, names map[int32]string) bool {
	_, ok := names[int32(v)]
	return ok
}
