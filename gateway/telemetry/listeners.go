package telemetry

import (
	"strconv"

	"github.com/drawbridge-gateway/drawbridge/bridge/l4"
	"github.com/drawbridge-gateway/drawbridge/bridge/l7"
	"github.com/drawbridge-gateway/drawbridge/bridge/limit"
	"github.com/drawbridge-gateway/drawbridge/certs"
	"github.com/drawbridge-gateway/drawbridge/gateway/listeners"
)

func (p *Publisher) publishListener(r *listeners.Running) {
	o := p.object(r, pair{"listener", r.Name})
	publishRevalidation(o, "bridge", r.Peers())
	if r.HTTP != nil {
		publishHTTP(o, r.HTTP.Stats())
	} else {
		publishTCP(o, r.TCP.Stats())
	}
}

func publishTCP(o *object, s l4.Stats) {
	o.gauge("bridge.conn.open", float64(s.Open))
	o.counter("bridge.conn.accepted", float64(s.Accepted))
	o.counter("bridge.conn.rejected", float64(s.Rejected))
	o.counter("bridge.conn.denied", float64(s.Denied))
	o.counter("bridge.conn.unrouted", float64(s.NoUpstream))
	o.counter("bridge.conn.undialed", float64(s.DialFailures))
	o.counter("bridge.bytes", float64(s.BytesToUpstream), pair{"direction", "to_upstream"})
	o.counter("bridge.bytes", float64(s.BytesToClient), pair{"direction", "to_client"})
	o.histogram("bridge.conn.duration_seconds", s.Durations)
	o.histogram("bridge.conn.first_byte_seconds", s.FirstBytes)
	publishLimited(o, s.Limited, limit.OfRate, limit.OfRatePerClient)
	publishByReason(o, "bridge.conn.unannounced", s.Unannounced)
	publishHandshakes(o, s.HandshakesFull, s.HandshakesResumed, s.HandshakeFailures)
}

func publishHTTP(o *object, s l7.Stats) {
	o.gauge("bridge.conn.open", float64(s.Open))
	o.counter("bridge.conn.accepted", float64(s.Accepted))
	o.counter("bridge.conn.rejected", float64(s.Rejected))
	o.counter("bridge.conn.denied", float64(s.Denied))
	o.counter("bridge.bytes", float64(s.BytesFromClient), pair{"direction", "to_upstream"})
	o.counter("bridge.bytes", float64(s.BytesToClient), pair{"direction", "to_client"})
	o.gauge("bridge.http.in_flight", float64(s.InFlight))
	o.counter("bridge.http.seconds", s.Duration.Seconds())
	for code, n := range s.Requests {
		o.counter("bridge.http.requests", float64(n), pair{"code", strconv.Itoa(code)})
	}
	for class, durations := range s.Durations {
		o.histogram("bridge.http.duration_seconds", durations, pair{"code", strconv.Itoa(class) + "xx"})
	}
	publishLimited(o, s.Limited, limit.AtOnce, limit.AtOncePerClient, limit.OfRate, limit.OfRatePerClient)
	publishByReason(o, "bridge.conn.unannounced", s.Unannounced)
	publishHandshakes(o, s.HandshakesFull, s.HandshakesResumed, s.HandshakeFailures)
}

// limitNames are the names of the fields of ListenerLimits.
var limitNames = map[limit.Kind]string{
	limit.AtOnce: "requests", limit.AtOncePerClient: "requests_per_client",
	limit.OfRate: "rate", limit.OfRatePerClient: "rate_per_client",
}

func publishLimited(o *object, counts map[limit.Kind]uint64, kinds ...limit.Kind) {
	for _, k := range kinds {
		o.counter("bridge.limited", float64(counts[k]), pair{"limit", limitNames[k]})
	}
}

func publishHandshakes(o *object, full, resumed uint64, failures map[certs.Reason]uint64) {
	o.counter("bridge.handshakes", float64(full), pair{"result", "full"})
	o.counter("bridge.handshakes", float64(resumed), pair{"result", "resumed"})
	publishByReason(o, "bridge.handshake.failures", failures)
}
