package upstream

import (
	"math/rand/v2"
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

// cameUp is told when the endpoint has come to take traffic, or to take it again,
// while others did: with Options.SlowStart its share begins small. It is not for
// endpoints that begin together, as those of a new upstream do.
func (e *Endpoint) cameUp(now time.Time) {
	if e.upstream.options.SlowStart > 0 {
		e.since.Store(max(int64(now.Sub(e.upstream.made)), 0) + 1)
	}
	e.upstream.changed()
}

// follow says what took the traffic of e's upstream until now; nil: nothing. There
// e may have come up a while ago.
func (e *Endpoint) follow(replaced *Upstream) {
	period := e.upstream.options.SlowStart
	if replaced == nil || period == 0 || len(replaced.Endpoints()) == 0 {
		return
	}
	begun := e.upstream.made
	for _, before := range replaced.Endpoints() {
		if before.options.Network != e.options.Network || before.options.Address != e.options.Address || !before.takes() {
			continue
		}
		since := before.since.Load()
		if since == 0 {
			return
		}
		begun = replaced.made.Add(time.Duration(since - 1))
	}
	// Where it came up before its upstream was made, this is less than 0.
	e.since.Store(int64(begun.Sub(e.upstream.made)) + 1)
}

// share returns the endpoint's part of the traffic, relative to the others'.
func (e *Endpoint) share(now *instant) uint64 {
	return uint64(e.weight.Load()) * e.grown(now)
}

// grown returns how much of its weight the endpoint has, of wholeShare.
func (e *Endpoint) grown(now *instant) uint64 {
	since := e.since.Load()
	if since == 0 {
		return wholeShare
	}
	if *now == 0 {
		*now = instant(time.Since(e.upstream.made))
	}
	age, period := time.Duration(*now)-time.Duration(since-1), e.upstream.options.SlowStart
	if age >= period {
		e.since.CompareAndSwap(since, 0)
		return wholeShare
	}
	return firstShare + uint64(max(age, 0))*(wholeShare-firstShare)/uint64(period)
}

// accepts reports whether the endpoint, whose turn it is, takes it: as often as
// it has grown.
func (e *Endpoint) accepts() bool {
	if e.since.Load() == 0 {
		return true
	}
	var now instant
	return rand.Uint64N(wholeShare) < e.grown(&now)
}
