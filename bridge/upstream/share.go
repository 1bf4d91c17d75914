package upstream

import (
	"math/rand/v2"
	"sync/atomic"
	"time"
)

// wholeShare is the share of an endpoint of weight 1 that has its own; one that
// has just come up begins with firstShare.
const (
	wholeShare = 1 << 10
	firstShare = wholeShare / 10
)

// An instant is a time of an Upstream, asked for at most once.
type instant time.Duration

// A trafficShare is an endpoint's part of the traffic. Weight and backup are as the
// next group has them; see setShare.
type trafficShare struct {
	upstream *Upstream
	weight   atomic.Int64 // at least 1
	backup   atomic.Bool
	since    atomic.Int64 // when the endpoint came up, in time of upstream plus 1; 0: it has its whole share
}

// cameUp is told when the endpoint has come to take traffic, or to take it again,
// while others did: with Options.SlowStart its share begins small. It is not for
// endpoints that begin together, as those of a new upstream do.
func (s *trafficShare) cameUp(now time.Time) {
	if s.upstream.options.SlowStart > 0 {
		s.since.Store(max(int64(now.Sub(s.upstream.made)), 0) + 1)
	}
	s.upstream.changed()
}

// share returns the endpoint's part of the traffic, relative to the others'.
func (s *trafficShare) share(now *instant) uint64 {
	return uint64(s.weight.Load()) * s.grown(now)
}

// grown returns how much of its weight the endpoint has, of wholeShare.
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

// accepts reports whether the endpoint, whose turn it is, takes it: as often as
// it has grown.
func (s *trafficShare) accepts() bool {
	if s.since.Load() == 0 {
		return true
	}
	var now instant
	return rand.Uint64N(wholeShare) < s.grown(&now)
}

// setShare gives the endpoint another share of the traffic, in the group that is
// made next. It reports whether that is another one.
func (s *trafficShare) setShare(weight int, backup bool) bool {
	changed := s.weight.Swap(int64(max(weight, 1))) != int64(max(weight, 1))
	return s.backup.Swap(backup) != backup || changed
}
