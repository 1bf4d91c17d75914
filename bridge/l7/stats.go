package l7

import (
	"maps"
	"sync"
	"sync/atomic"
	"time"

	"github.com/drawbridge-gateway/drawbridge/bridge/latency"
	"github.com/drawbridge-gateway/drawbridge/bridge/limit"
	"github.com/drawbridge-gateway/drawbridge/bridge/proxyproto"
	"github.com/drawbridge-gateway/drawbridge/certs"
)

// Stats is what a Server has done since it was made.
type Stats struct {
	Open     uint64 // connections open now, upgraded ones included
	Accepted uint64 // connections taken
	Rejected uint64 // connections closed as they came, over a limit
	Denied   uint64 // connections closed because Table.Access serves their clients not

	Limited map[limit.Kind]uint64 // requests that were over one of Table.Limits

	// Unannounced are those closed for want of a PROXY protocol header.
	Unannounced map[proxyproto.Reason]uint64

	BytesFromClient, BytesToClient uint64 // on the wire, so under TLS

	HandshakesFull, HandshakesResumed uint64
	HandshakeFailures                 map[certs.Reason]uint64

	InFlight uint64         // requests being served now
	Requests map[int]uint64 // by status code; 499: the client left unanswered
	Duration time.Duration  // of all requests together, upgraded ones until their end

	// Durations of requests, by the first digit of their status code; those that
	// were upgraded are under 1, and end with the connection.
	Durations [6]latency.Counts
}

// counters are written by every connection and request.
type counters struct {
	open, inFlight            atomic.Int64
	accepted, rejected        atomic.Uint64
	denied                    atomic.Uint64
	fromClient, toClient      atomic.Uint64
	full, resumed             atomic.Uint64
	codes                     [600]atomic.Uint64
	durations                 [6]latency.Histogram
	unannounced               proxyproto.Refusals
	mu                        sync.Mutex
	handshakeFailuresByReason map[certs.Reason]uint64
}

func (c *counters) handshakeFailed(reason certs.Reason) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.handshakeFailuresByReason == nil {
		c.handshakeFailuresByReason = make(map[certs.Reason]uint64)
	}
	c.handshakeFailuresByReason[reason]++
}

func (c *counters) requestDone(code int, d time.Duration, upgraded bool) {
	class := 0
	if code > 0 && code < len(c.codes) {
		c.codes[code].Add(1)
		class = code / 100
	}
	if upgraded {
		class = 1
	}
	c.durations[class].Observe(d)
}

// Stats returns the present numbers. It takes no lock that traffic waits for
// but the one of failed handshakes.
func (s *Server) Stats() Stats {
	c := &s.counters
	st := Stats{
		Open:              uint64(max(c.open.Load(), 0)),
		Accepted:          c.accepted.Load(),
		Rejected:          c.rejected.Load(),
		Denied:            c.denied.Load(),
		Limited:           s.limiter.Refused(),
		Unannounced:       c.unannounced.Counts(),
		BytesFromClient:   c.fromClient.Load(),
		BytesToClient:     c.toClient.Load(),
		HandshakesFull:    c.full.Load(),
		HandshakesResumed: c.resumed.Load(),
		InFlight:          uint64(max(c.inFlight.Load(), 0)),
		Requests:          make(map[int]uint64),
	}
	for class := range c.durations {
		st.Durations[class] = c.durations[class].Counts()
		st.Duration += st.Durations[class].Total
	}
	for code := range c.codes {
		if n := c.codes[code].Load(); n > 0 {
			st.Requests[code] = n
		}
	}
	c.mu.Lock()
	st.HandshakeFailures = maps.Clone(c.handshakeFailuresByReason)
	c.mu.Unlock()
	return st
}
