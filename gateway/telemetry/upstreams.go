package telemetry

import (
	"time"

	"github.com/drawbridge-gateway/drawbridge/bridge/upstream"
	"github.com/drawbridge-gateway/drawbridge/gateway/snapshot"
)

func (p *Publisher) publishUpstream(u snapshot.Upstream) {
	publishLatencies(p.object(u.Latencies, pair{"upstream", u.Name}), u.Latencies)
	publishRevalidation(p.object(u.Tracker, pair{"upstream", u.Name}), "upstream", u.Tracker.Peers())
	p.publishCounts(u)
}

// publishCounts publishes all counts except those that upstreams of the same name
// share across revisions.
func (p *Publisher) publishCounts(u snapshot.Upstream) {
	name := pair{"upstream", u.Name}
	live := p.object(u.Live, name)
	live.gauge("upstream.unverified", indicator(u.Unverified))
	publishLoad(live, u.Live)
	if d := u.Live.DNS(); d != nil {
		publishDNS(live, d, len(u.Live.Endpoints()))
	}
	endpoints := u.Live.Counts()
	open := map[string]uint64{} // a removed endpoint may have the same address as another one
	for _, e := range endpoints {
		open[e.Address] += e.Open
	}
	for _, e := range endpoints {
		e.Open = open[e.Address]
		publishEndpoint(p.object(e.Of, name, pair{"endpoint", e.Address}), e)
	}
}

func publishLatencies(o *object, l *upstream.Latencies) {
	o.histogram("upstream.dial.duration_seconds", l.Connect.Counts(), pair{"phase", "tcp"})
	o.histogram("upstream.dial.duration_seconds", l.Handshake.Counts(), pair{"phase", "tls"})
	o.histogram("upstream.response_head_seconds", l.Head.Counts())
}

func publishDNS(o *object, d *upstream.DNSStatus, endpoints int) {
	o.gauge("upstream.dns.endpoints", float64(endpoints))
	o.counter("upstream.dns.lookups", float64(d.Lookups-d.Failed), pair{"result", "ok"})
	o.counter("upstream.dns.lookups", float64(d.Failed), pair{"result", "failed"})
	if !d.Resolved.IsZero() {
		o.gauge("upstream.dns.age_seconds", time.Since(d.Resolved).Seconds())
	}
}

func publishLoad(o *object, u *upstream.Upstream) {
	load := u.Load()
	o.gauge("upstream.pending", float64(load.Pending))
	o.counter("upstream.overloaded", float64(load.Overloaded))
	made, refused := u.Retries().Counts()
	o.counter("upstream.retries", float64(made), pair{"result", "made"})
	o.counter("upstream.retries", float64(refused), pair{"result", "refused"})
}

func publishEndpoint(o *object, e upstream.EndpointStatus) {
	o.gauge("upstream.conn.open", float64(e.Open))
	o.counter("upstream.conn.made", float64(e.Made))
	o.gauge("upstream.in_flight", float64(e.InFlight))
	o.counter("upstream.requests", float64(e.Requests))
	o.counter("upstream.handshakes", float64(e.HandshakesFull), pair{"result", "full"})
	o.counter("upstream.handshakes", float64(e.HandshakesResumed), pair{"result", "resumed"})
	publishByReason(o, "upstream.full_handshakes", e.Full)
	publishByReason(o, "upstream.failures", e.Failures)
	publishByReason(o, "upstream.reported", e.Reported)
	publishTiming(o, "tcp", e.Connects)
	publishTiming(o, "tls", e.Handshakes)
	if w := e.Warm; w != nil {
		if !e.Left {
			o.gauge("upstream.warm.ready", float64(w.Ready))
		}
		o.counter("upstream.warm.used", float64(w.Used))
		o.counter("upstream.warm.missed", float64(w.Missed))
		o.counter("upstream.warm.expired", float64(w.Expired))
		o.counter("upstream.warm.closed", float64(w.Closed))
	}
	o.counter("upstream.ejections", float64(e.Ejections))
	if c := e.Check; c != nil {
		o.counter("upstream.checks", float64(c.Checks-c.Failures), pair{"result", "ok"})
		o.counter("upstream.checks", float64(c.Failures), pair{"result", "failed"})
	}
	if !e.Left {
		o.gauge("upstream.available", indicator(e.Available))
	}
	if e.Health != upstream.Unknown && !e.Left {
		o.gauge("upstream.up", indicator(e.Health == upstream.Up))
	}
}

func publishTiming(o *object, phase string, t upstream.Timing) {
	o.counter("upstream.dials", float64(t.Count), pair{"phase", phase})
	o.counter("upstream.dial.seconds", t.Total.Seconds(), pair{"phase", phase})
}
