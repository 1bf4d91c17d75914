package telemetry

import (
	"time"

	"github.com/drawbridge-gateway/drawbridge/bridge/upstream"
	"github.com/drawbridge-gateway/drawbridge/gateway/snapshot"
)

func (p *Publisher) publishUpstream(u snapshot.Upstream) {
	publishLatencies(p.object(u.Latencies, label("upstream", u.Name)), u.Latencies)
	publishRevalidation(p.object(u.Tracker, label("upstream", u.Name)), "upstream", u.Tracker.Peers())
	p.publishCounts(u)
}

// publishCounts publishes everything except the counts that all upstreams of the name
// share across revisions.
func (p *Publisher) publishCounts(u snapshot.Upstream) {
	name := label("upstream", u.Name)
	live := p.object(u.Live, name)
	live.gauge([]string{"upstream", "unverified"}, indicator(u.Unverified))
	publishLoad(live, u.Live)
	if d := u.Live.DNS(); d != nil {
		publishDNS(live, d, len(u.Live.Endpoints()))
	}
	endpoints := u.Live.Status()
	open := map[string]uint64{} // an endpoint that was removed may have the address of another
	for _, e := range endpoints {
		open[e.Address] += e.Open
	}
	for _, e := range endpoints {
		e.Open = open[e.Address]
		publishEndpoint(p.object(e.Of, name, label("endpoint", e.Address)), e)
	}
}

func publishLatencies(o *object, l *upstream.Latencies) {
	o.histogram("upstream_dial_duration_seconds", l.Connect.Counts(), label("phase", "tcp"))
	o.histogram("upstream_dial_duration_seconds", l.Handshake.Counts(), label("phase", "tls"))
	o.histogram("upstream_response_head_seconds", l.Head.Counts())
}

func publishDNS(o *object, d *upstream.DNSStatus, endpoints int) {
	o.gauge([]string{"upstream", "dns", "endpoints"}, float64(endpoints))
	o.counter([]string{"upstream", "dns", "lookups"}, float64(d.Lookups-d.Failed), label("result", "ok"))
	o.counter([]string{"upstream", "dns", "lookups"}, float64(d.Failed), label("result", "failed"))
	if !d.Resolved.IsZero() {
		o.gauge([]string{"upstream", "dns", "age_seconds"}, time.Since(d.Resolved).Seconds())
	}
}

func publishLoad(o *object, u *upstream.Upstream) {
	load := u.Load()
	o.gauge([]string{"upstream", "pending"}, float64(load.Pending))
	o.counter([]string{"upstream", "overloaded"}, float64(load.Overloaded))
	made, refused := u.Retries().Counts()
	o.counter([]string{"upstream", "retries"}, float64(made), label("result", "made"))
	o.counter([]string{"upstream", "retries"}, float64(refused), label("result", "refused"))
}

func publishEndpoint(o *object, e upstream.EndpointStatus) {
	o.gauge([]string{"upstream", "conn", "open"}, float64(e.Open))
	o.counter([]string{"upstream", "conn", "made"}, float64(e.Made))
	o.gauge([]string{"upstream", "in_flight"}, float64(e.InFlight))
	o.counter([]string{"upstream", "requests"}, float64(e.Requests))
	o.counter([]string{"upstream", "handshakes"}, float64(e.HandshakesFull), label("result", "full"))
	o.counter([]string{"upstream", "handshakes"}, float64(e.HandshakesResumed), label("result", "resumed"))
	for why, n := range e.Full {
		o.counter([]string{"upstream", "full_handshakes"}, float64(n), label("reason", string(why)))
	}
	for r, n := range e.Failures {
		o.counter([]string{"upstream", "failures"}, float64(n), label("reason", string(r)))
	}
	for r, n := range e.Reported {
		o.counter([]string{"upstream", "reported"}, float64(n), label("reason", string(r)))
	}
	for phase, t := range map[string]upstream.Timing{"tcp": e.Connects, "tls": e.Handshakes} {
		o.counter([]string{"upstream", "dials"}, float64(t.Count), label("phase", phase))
		o.counter([]string{"upstream", "dial", "seconds"}, t.Total.Seconds(), label("phase", phase))
	}
	if w := e.Warm; w != nil {
		if !e.Left {
			o.gauge([]string{"upstream", "warm", "ready"}, float64(w.Ready))
		}
		o.counter([]string{"upstream", "warm", "used"}, float64(w.Used))
		o.counter([]string{"upstream", "warm", "missed"}, float64(w.Missed))
		o.counter([]string{"upstream", "warm", "expired"}, float64(w.Expired))
		o.counter([]string{"upstream", "warm", "closed"}, float64(w.Closed))
	}
	o.counter([]string{"upstream", "ejections"}, float64(e.Ejections))
	if c := e.Check; c != nil {
		o.counter([]string{"upstream", "checks"}, float64(c.Checks-c.Failures), label("result", "ok"))
		o.counter([]string{"upstream", "checks"}, float64(c.Failures), label("result", "failed"))
	}
	if !e.Left {
		o.gauge([]string{"upstream", "available"}, indicator(e.Available))
	}
	if e.Health != upstream.Unknown && !e.Left {
		o.gauge([]string{"upstream", "up"}, indicator(e.Health == upstream.Up))
	}
}
