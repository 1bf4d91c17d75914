package upstream

import (
	"math/rand/v2"
	"sync/atomic"
	"time"
)

// wholeShare is the full share of an endpoint of weight 1; an endpoint that
// has just come up starts with firstShare.
const (
	wholeShare = 1 << 10
	firstShare = wholeShare / 10
)

// An instant is a time of an Upstream, read from the clock at most once.
type instant time.Duration

// A trafficShare is an endpoint's part of the traffic. The next group uses
// weight and backup; see setShare.
type trafficShare struct {
	upstream *Upstream
	weight   atomic.Int64 // at least 1
	backup   atomic.Bool
	since    atomic.Int64 // when the endpoint came up, in time of upstream plus 1; 0: it has its full share
}

// cameUp records that the endpoint starts to take traffic while others already
// do: with Options.SlowStart its share starts small. It is not called for
// endpoints that start together, such as those of a new upstream.
func (s *trafficShare) cameUp(now time.Time) {
	if s.upstream.options.SlowStart > 0 {
		s.since.Store(max(int64(now.Sub(s.upstream.made)), 0) + 1)
	}
	s.upstream.changed()
}

// share returns the endpoint's part of the traffic, relative to the other
// endpoints.
func (s *trafficShare) share(now *instant) uint64 {
	return uint64(s.weight.Load()) * s.grown(now)
}

// grown returns the fraction of its weight that the endpoint has reached, of
// wholeShare.
func (s *trafficShare) grown(now *instant) uint64 {
	since := s.since.Load()
	if since == 0 {
		return wholeShare
	}
	if *now == 0 {
		*now = instant(time.Since(s.upstream.made))
	}
	age, period := time.Duration(*now)-time.Duration(since-1), s.upstream.options.SlowStart
	if age >= period {
		s.since.CompareAndSwap(since, 0)
		return wholeShare
	}
	return firstShare + uint64(max(age, 0))*(wholeShare-firstShare)/uint64(period)
}

// accepts reports whether the endpoint accepts its turn. The probability is
// its grown fraction.
func (s *trafficShare) accepts() bool {
	if s.since.Load() == 0 {
		return true
	}
	var now instant
	return rand.Uint64N(wholeShare) < s.grown(&now)
}

// setShare changes the endpoint's weight and role for the next group. It
// reports whether they changed.
func (s *trafficShare) setShare(weight int, backup bool) bool {
	changed := s.weight.Swap(int64(max(weight, 1))) != int64(max(weight, 1))
	return s.backup.Swap(backup) != backup || changed
}
