package l7

import (
	"sync/atomic"
	"time"

	"github.com/drawbridge-gateway/drawbridge/bridge/intake"
	"github.com/drawbridge-gateway/drawbridge/bridge/latency"
	"github.com/drawbridge-gateway/drawbridge/bridge/limit"
)

// Stats are the counters of a Server since its creation.
type Stats struct {
	intake.Stats

	Limited map[limit.Kind]uint64 // requests that were over one of Table.Limits

	BytesFromClient, BytesToClient uint64 // bytes on the wire, below TLS

	InFlight uint64         // requests being served now
	Requests map[int]uint64 // by status code; 499: the client left before an answer
	Duration time.Duration  // total of all requests; an upgraded request counts until its end

	// Durations of requests, by the first digit of their status code. Upgraded
	// requests count under 1, and end with the connection.
	Durations [6]latency.Counts
}

// counters are written by every connection and request.
type counters struct {
	inFlight             atomic.Int64
	fromClient, toClient atomic.Uint64
	codes                [600]atomic.Uint64
	durations            [6]latency.Histogram
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

// Stats returns the current numbers. The only lock that it shares with traffic
// guards the failed handshakes.
func (s *Server) Stats() Stats {
	c := &s.counters
	st := Stats{
		Stats:           s.intake.Stats(),
		Limited:         s.limiter.Refused(),
		BytesFromClient: c.fromClient.Load(),
		BytesToClient:   c.toClient.Load(),
		InFlight:        uint64(max(c.inFlight.Load(), 0)),
		Requests:        make(map[int]uint64),
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
	return st
}
