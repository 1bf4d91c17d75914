package rollout

import (
	"maps"
	"sync"
	"time"

	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

// Counts are numbers of events, and of those among them that failed.
type Counts struct {
	Requests, RequestsFailed       uint64
	Connections, ConnectionsFailed uint64
	Dials, DialsFailed             uint64

	Failures map[string]uint64 // by kind and reason
}

// Fail counts failures by their kind and reason, such as "dial CONNECT_REFUSED".
func (c *Counts) Fail(reason string, n uint64) {
	if n == 0 {
		return
	}
	if c.Failures == nil {
		c.Failures = map[string]uint64{}
	}
	c.Failures[reason] += n
}

// plus returns c with the difference from one count to another.
func (c Counts) plus(to, from Counts) Counts {
	c.Requests += to.Requests - from.Requests
	c.RequestsFailed += to.RequestsFailed - from.RequestsFailed
	c.Connections += to.Connections - from.Connections
	c.ConnectionsFailed += to.ConnectionsFailed - from.ConnectionsFailed
	c.Dials += to.Dials - from.Dials
	c.DialsFailed += to.DialsFailed - from.DialsFailed
	copied := false
	for reason, n := range to.Failures {
		if n -= from.Failures[reason]; n == 0 {
			continue
		}
		if !copied {
			sum := map[string]uint64{}
			maps.Copy(sum, c.Failures)
			c.Failures, copied = sum, true
		}
		c.Failures[reason] += n
	}
	return c
}

// Message returns the counts as the API shows them.
func (c Counts) Message() *adminv1.TrafficCounts {
	out := &adminv1.TrafficCounts{
		Requests: int64(c.Requests), RequestsFailed: int64(c.RequestsFailed),
		Connections: int64(c.Connections), ConnectionsFailed: int64(c.ConnectionsFailed),
		Dials: int64(c.Dials), DialsFailed: int64(c.DialsFailed),
	}
	for reason, n := range c.Failures {
		if out.Failures == nil {
			out.Failures = map[string]int64{}
		}
		out.Failures[reason] = int64(n)
	}
	return out
}

// A Source calls yield with the counts of every object that serves traffic. The
// counts of an object begin at 0 and never decrease.
type Source func(yield func(of any, c Counts))

const (
	// window is how far back a Meter remembers, and sampleEvery how often it samples.
	window      = 5 * time.Minute
	sampleEvery = 10 * time.Second
)

// A Meter counts the traffic of a gateway. Its counts survive the things that it counts:
// a replaced upstream begins at 0 again. Its methods may be called concurrently.
type Meter struct {
	source Source

	mu      sync.Mutex
	seen    map[any]Counts // the last counts of each thing; guarded by mu
	total   Counts         // guarded by mu
	samples []sample       // those in the window, oldest first; guarded by mu
}

type sample struct {
	at    time.Time
	total Counts
}

// NewMeter returns a meter that has counted nothing.
func NewMeter(s Source) *Meter { return &Meter{source: s} }

// Tick samples the counts if the last sample is old.
func (m *Meter) Tick(now time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if n := len(m.samples); n == 0 || now.Sub(m.samples[n-1].at) >= sampleEvery {
		m.sample(now)
	}
}

// Total returns the current counts, and the counts in the window before now.
func (m *Meter) Total(now time.Time) (total, recent Counts) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.sample(now)
	return m.total, Counts{}.plus(m.total, m.samples[0].total)
}

// Since returns the counts since Total returned a total.
func (m *Meter) Since(total Counts, now time.Time) Counts {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.sample(now)
	return Counts{}.plus(m.total, total)
}

// sample reads the source. The caller holds mu.
func (m *Meter) sample(now time.Time) {
	seen := make(map[any]Counts, len(m.seen))
	m.source(func(of any, c Counts) {
		seen[of] = c
		m.total = m.total.plus(c, m.seen[of])
	})
	m.seen = seen
	for len(m.samples) > 0 && now.Sub(m.samples[0].at) > window {
		m.samples = m.samples[1:]
	}
	if n := len(m.samples); n == 0 || now.Sub(m.samples[n-1].at) >= sampleEvery {
		m.samples = append(m.samples, sample{now, m.total})
	}
}
