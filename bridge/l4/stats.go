package l4

import (
	"sync/atomic"

	"github.com/drawbridge-gateway/drawbridge/bridge/intake"
	"github.com/drawbridge-gateway/drawbridge/bridge/latency"
	"github.com/drawbridge-gateway/drawbridge/bridge/limit"
)

// Stats are what a Server has counted since it was made. The byte counts rise
// while connections are open.
type Stats struct {
	intake.Stats

	Limited map[limit.Kind]uint64 // those of Rejected that were over a rate

	NoUpstream   uint64 // closed because neither a route nor a default took them
	DialFailures uint64 // closed because no endpoint could be connected to

	BytesToUpstream, BytesToClient uint64

	Durations  latency.Counts // of connections that have ended
	FirstBytes latency.Counts // from the beginning of a connection until the upstream's first bytes were delivered
}

type counters struct {
	noUpstream, dialFailures atomic.Uint64
	toUpstream, toClient     atomic.Uint64

	durations, firstBytes latency.Histogram
}

// Stats returns the counts now.
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
