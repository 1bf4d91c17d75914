package l4

import (
	"maps"
	"sync"
	"sync/atomic"

	"github.com/drawbridge-gateway/drawbridge/bridge/latency"
	"github.com/drawbridge-gateway/drawbridge/bridge/limit"
	"github.com/drawbridge-gateway/drawbridge/bridge/proxyproto"
	"github.com/drawbridge-gateway/drawbridge/certs"
)

// Stats are what a Server has counted since it was made. The byte counts are
// exact and rise while connections are open.
type Stats struct {
	Open     uint64 // connections open now
	Accepted uint64 // taken
	Rejected uint64 // closed as they came, over a limit
	Denied   uint64 // closed because Table.Access serves their clients not

	Limited map[limit.Kind]uint64 // those rejected because of a rate

	// Unannounced are those closed for want of a PROXY protocol header.
	Unannounced map[proxyproto.Reason]uint64

	NoUpstream   uint64 // closed because neither a route nor a default took them
	DialFailures uint64 // closed because no endpoint could be connected to

	BytesToUpstream, BytesToClient uint64

	// The clients' TLS handshakes.
	HandshakesFull, HandshakesResumed uint64
	HandshakeFailures                 map[certs.Reason]uint64

	Durations  latency.Counts // of connections that have ended
	FirstBytes latency.Counts // from the beginning of a connection until the upstream's first bytes were delivered
}

type counters struct {
	open                                         atomic.Int64
	accepted, rejected, noUpstream, dialFailures atomic.Uint64
	denied                                       atomic.Uint64
	toUpstream, toClient                         atomic.Uint64
	full, resumed                                atomic.Uint64

	durations, firstBytes latency.Histogram

	unannounced proxyproto.Refusals

	mu       sync.Mutex
	failures map[certs.Reason]uint64
}

func (c *counters) handshakeFailed(r certs.Reason) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.failures == nil {
		c.failures = make(map[certs.Reason]uint64)
	}
	c.failures[r]++
}

// Stats returns the counts now.
func (s *Server) Stats() Stats {
	c := &s.count
	c.mu.Lock()
	failures := maps.Clone(c.failures)
	c.mu.Unlock()
	return Stats{
		Open:              uint64(c.open.Load()),
		Accepted:          c.accepted.Load(),
		Rejected:          c.rejected.Load(),
		Denied:            c.denied.Load(),
		Limited:           s.limiter.Refused(),
		Unannounced:       c.unannounced.Counts(),
		NoUpstream:        c.noUpstream.Load(),
		DialFailures:      c.dialFailures.Load(),
		BytesToUpstream:   c.toUpstream.Load(),
		BytesToClient:     c.toClient.Load(),
		HandshakesFull:    c.full.Load(),
		HandshakesResumed: c.resumed.Load(),
		HandshakeFailures: failures,
		Durations:         c.durations.Counts(),
		FirstBytes:        c.firstBytes.Counts(),
	}
}
