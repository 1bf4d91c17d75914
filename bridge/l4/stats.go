package l4

import (
	"sync/atomic"

	"github.com/drawbridge-gateway/drawbridge/bridge/intake"
	"github.com/drawbridge-gateway/drawbridge/bridge/latency"
	"github.com/drawbridge-gateway/drawbridge/bridge/limit"
)

// Stats are a Server's counts since it was created. The byte counts rise while
// connections are open.
type Stats struct {
	intake.Stats

	Limited map[limit.Kind]uint64 // the part of Rejected that exceeded a rate

	NoUpstream   uint64 // closed because no route matched and there is no default
	DialFailures uint64 // closed because no endpoint could be dialed

	BytesToUpstream, BytesToClient uint64

	Durations  latency.Counts // durations of ended connections
	FirstBytes latency.Counts // from accept until the upstream's first bytes were delivered
}

type counters struct {
	noUpstream, dialFailures atomic.Uint64
	toUpstream, toClient     atomic.Uint64

	durations, firstBytes latency.Histogram
}

// Stats returns the current counts.
func (s *Server) Stats() Stats {
	c := &s.count
	return Stats{
		Stats:           s.intake.Stats(),
		Limited:         s.limiter.Refused(),
		NoUpstream:      c.noUpstream.Load(),
		DialFailures:    c.dialFailures.Load(),
		BytesToUpstream: c.toUpstream.Load(),
		BytesToClient:   c.toClient.Load(),
		Durations:       c.durations.Counts(),
		FirstBytes:      c.firstBytes.Counts(),
	}
}
