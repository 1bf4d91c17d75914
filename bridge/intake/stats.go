package intake

import (
	"maps"
	"sync"
	"sync/atomic"

	"github.com/drawbridge-gateway/drawbridge/bridge/proxyproto"
	"github.com/drawbridge-gateway/drawbridge/certs"
)

// Stats are an Intake's counts since it was created.
type Stats struct {
	Open     uint64 // connections open now
	Accepted uint64 // connections admitted
	Rejected uint64 // connections closed because a limit was reached
	Denied   uint64 // connections closed because Rules.Access does not admit the client

	// Unannounced counts connections closed because a valid PROXY protocol header was
	// missing, by reason.
	Unannounced map[proxyproto.Reason]uint64

	// The clients' TLS handshakes.
	HandshakesFull, HandshakesResumed uint64
	HandshakeFailures                 map[certs.Reason]uint64
}

type counters struct {
	open                       atomic.Int64
	accepted, rejected, denied atomic.Uint64
	full, resumed              atomic.Uint64
	unannounced                proxyproto.Refusals

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

// Stats returns the current counts.
func (i *Intake) Stats() Stats {
	c := &i.count
	c.mu.Lock()
	failures := maps.Clone(c.failures)
	c.mu.Unlock()
	return Stats{
		Open:              uint64(max(c.open.Load(), 0)),
		Accepted:          c.accepted.Load(),
		Rejected:          c.rejected.Load(),
		Denied:            c.denied.Load(),
		Unannounced:       c.unannounced.Counts(),
		HandshakesFull:    c.full.Load(),
		HandshakesResumed: c.resumed.Load(),
		HandshakeFailures: failures,
	}
}
