package snapshot

import (
	"math"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/drawbridge-gateway/drawbridge/gateway/invalid"
)

// maxWait bounds every configured wait: longer ones are mistakes of unit.
const maxWait = 30 * 24 * time.Hour

// duration returns a wait: 0, its default, if it is left out.
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

// maxWeight is the largest share that an endpoint or upstream can have.
const maxWeight = math.MaxUint16

func (s *scope) weight(p invalid.Path, w int32) int {
	if w > maxWeight {
		s.Add(p, "is %d; it must be at most %d", w, maxWeight)
		return 0
	}
	return int(w)
}

// limit checks a count against a bound.
func (s *scope) limit(p invalid.Path, n, most int32) int {
	if n > most {
		s.Add(p, "is %d; it must be at most %d", n, most)
		return 0
	}
	return int(n)
}

// enum reports whether a number is one of the enum's values. If it is not, the
// scope has refused it already (wellformed.Check).
func enum[E ~int32](v E, names map[int32]string) bool {
	_, ok := names[int32(v)]
	return ok
}
