package telemetry

import (
	"strconv"

	"github.com/drawbridge-gateway/drawbridge/bridge/l4"
	"github.com/drawbridge-gateway/drawbridge/bridge/l7"
	"github.com/drawbridge-gateway/drawbridge/bridge/limit"
	"github.com/drawbridge-gateway/drawbridge/bridge/proxyproto"
	"github.com/drawbridge-gateway/drawbridge/certs"
	"github.com/drawbridge-gateway/drawbridge/gateway/listeners"
)

func (p *Publisher) publishListener(r *listeners.Running) {
	o := p.object(r, label("listener", r.Name))
	publishRevalidation(o, "bridge", r.Peers())
	if r.HTTP != nil {
		publishHTTP(o, r.HTTP.Stats())
	} else {
		publishTCP(o, r.TCP.Stats())
	}
}

func publishTCP(o *object, s l4.Stats) {
	o.gauge([]string{"bridge", "conn", "open"}, float64(s.Open))
	o.counter([]string{"bridge", "conn", "accepted"}, float64(s.Accepted))
	o.counter([]string{"bridge", "conn", "rejected"}, float64(s.Rejected))
	o.counter([]string{"bridge", "conn", "denied"}, float64(s.Denied))
	o.counter([]string{"bridge", "conn", "unrouted"}, float64(s.NoUpstream))
	o.counter([]string{"bridge", "conn", "undialed"}, float64(s.DialFailures))
	o.counter([]string{"bridge", "bytes"}, float64(s.BytesToUpstream), label("direction", "to_upstream"))
	o.counter([]string{"bridge", "bytes"}, float64(s.BytesToClient), label("direction", "to_client"))
	o.histogram("bridge_conn_duration_seconds", s.Durations)
	o.histogram("bridge_conn_first_byte_seconds", s.FirstBytes)
	publishLimited(o, s.Limited, limit.OfRate, limit.OfRatePerClient)
	publishUnannounced(o, s.Unannounced)
	publishHandshakes(o, s.HandshakesFull, s.HandshakesResumed, s.HandshakeFailures)
}

func publishHTTP(o *object, s l7.Stats) {
	o.gauge([]string{"bridge", "conn", "open"}, float64(s.Open))
	o.counter([]string{"bridge", "conn", "accepted"}, float64(s.Accepted))
	o.counter([]string{"bridge", "conn", "rejected"}, float64(s.Rejected))
	o.counter([]string{"bridge", "conn", "denied"}, float64(s.Denied))
	o.counter([]string{"bridge", "bytes"}, float64(s.BytesFromClient), label("direction", "to_upstream"))
	o.counter([]string{"bridge", "bytes"}, float64(s.BytesToClient), label("direction", "to_client"))
	o.gauge([]string{"bridge", "http", "in_flight"}, float64(s.InFlight))
	o.counter([]string{"bridge", "http", "seconds"}, s.Duration.Seconds())
	for code, n := range s.Requests {
		o.counter([]string{"bridge", "http", "requests"}, float64(n), label("code", strconv.Itoa(code)))
	}
	for class, durations := range s.Durations {
		o.histogram("bridge_http_duration_seconds", durations, label("code", strconv.Itoa(class)+"xx"))
	}
	publishLimited(o, s.Limited, limit.AtOnce, limit.AtOncePerClient, limit.OfRate, limit.OfRatePerClient)
	publishUnannounced(o, s.Unannounced)
	publishHandshakes(o, s.HandshakesFull, s.HandshakesResumed, s.HandshakeFailures)
}

// limitNames are the names of the fields of ListenerLimits.
var limitNames = map[limit.Kind]string{
	limit.AtOnce: "requests", limit.AtOncePerClient: "requests_per_client",
	limit.OfRate: "rate", limit.OfRatePerClient: "rate_per_client",
}

func publishLimited(o *object, counts map[limit.Kind]uint64, kinds ...limit.Kind) {
	for _, k := range kinds {
		o.counter([]string{"bridge", "limited"}, float64(counts[k]), label("limit", limitNames[k]))
	}
}

func publishUnannounced(o *object, by map[proxyproto.Reason]uint64) {
	for why, n := range by {
		o.counter([]string{"bridge", "conn", "unannounced"}, float64(n), label("reason", string(why)))
	}
}

func publishHandshakes(o *object, full, resumed uint64, failures map[certs.Reason]uint64) {
	o.counter([]string{"bridge", "handshakes"}, float64(full), label("result", "full"))
	o.counter([]string{"bridge", "handshakes"}, float64(resumed), label("result", "resumed"))
	for r, n := range failures {
		o.counter([]string{"bridge", "handshake", "failures"}, float64(n), label("reason", string(r)))
	}
}
