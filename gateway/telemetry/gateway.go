package telemetry

import (
	"strings"
	"time"

	"github.com/armon/go-metrics"

	"github.com/drawbridge-gateway/drawbridge/gateway/snapshot"
	"github.com/drawbridge-gateway/drawbridge/gateway/store"
)

// publishGateway publishes the metrics of the gateway as a whole.
func (p *Publisher) publishGateway(snap *snapshot.Snapshot, now time.Time) {
	p.live.SetGauge([]string{"gateway", "revision"}, float32(snap.State().Revision()))
	p.live.SetGauge([]string{"gateway", "problems"}, float32(p.o.Problems()))
	p.live.SetGauge([]string{"gateway", "warnings"}, float32(len(snap.SecurityWarnings())))
	p.live.SetGauge([]string{"gateway", "uptime_seconds"}, float32(now.Sub(p.o.Started).Seconds()))
	for _, k := range store.Kinds() {
		kind := strings.ReplaceAll(store.KindName(k), " ", "_")
		p.live.SetGaugeWithLabels([]string{"gateway", "resources"}, float32(snap.State().Len(k)), []metrics.Label{label("kind", kind)})
	}
	p.publishExpiry(now)
	p.publishDescriptors()
	p.publishAccessLog()
	p.publishLog()
	p.publishFleet(snap.State().Revision(), now)
}

// publishFleet publishes how far the gateway is behind its fleet, if it has one.
func (p *Publisher) publishFleet(live int64, now time.Time) {
	if p.o.Fleet == nil {
		return
	}
	f := p.o.Fleet()
	truth := map[bool]float32{true: 1}
	p.live.SetGauge([]string{"fleet", "connected"}, truth[f.Connected])
	p.live.SetGauge([]string{"fleet", "diverged"}, truth[f.Diverged])
	p.live.SetGauge([]string{"fleet", "duplicate_id"}, truth[f.Duplicate])
	p.live.SetGauge([]string{"fleet", "copy_revision"}, float32(f.Copy))
	since := p.o.Started
	if !f.Contacted.IsZero() {
		since = f.Contacted
		p.live.SetGauge([]string{"fleet", "head_revision"}, float32(f.Head))
		p.live.SetGauge([]string{"fleet", "lag_revisions"}, float32(max(f.Head-live, 0)))
	}
	p.live.SetGauge([]string{"fleet", "contact_age_seconds"}, float32(now.Sub(since).Seconds()))
}

// publishDescriptors publishes the use of the process's file descriptors, and how
// many listeners are paused because descriptors are short.
func (p *Publisher) publishDescriptors() {
	limit, clients, upstreams := p.o.Descriptors.Usage()
	paused, pauses := p.o.Descriptors.Paused()
	for use, n := range map[string]int{"limit": limit, "clients": clients, "upstreams": upstreams} {
		p.live.SetGaugeWithLabels([]string{"gateway", "descriptors"}, float32(n), []metrics.Label{label("use", use)})
	}
	p.live.SetGauge([]string{"gateway", "listeners_paused"}, float32(paused))
	p.process.IncrCounter([]string{"gateway", "pauses"}, float32(pauses-p.pauses))
	p.pauses = pauses
}

// publishAccessLog publishes how many records the access log wrote and dropped, if
// there is an access log.
func (p *Publisher) publishAccessLog() {
	if p.o.AccessLog == nil {
		return
	}
	now := p.o.AccessLog.Stats()
	for result, n := range map[string]uint64{"written": now.Written - p.accessLog.Written, "dropped": now.Dropped - p.accessLog.Dropped} {
		p.process.IncrCounterWithLabels([]string{"access_log", "records"}, float32(n), []metrics.Label{label("result", result)})
	}
	p.process.IncrCounter([]string{"access_log", "failed_writes"}, float32(now.Failures-p.accessLog.Failures))
	p.accessLog = now
}

// publishLog publishes how many log lines were dropped.
func (p *Publisher) publishLog() {
	if p.o.LogDropped == nil {
		return
	}
	now := p.o.LogDropped()
	p.process.IncrCounter([]string{"gateway", "log_dropped"}, float32(now-p.logDropped))
	p.logDropped = now
}

// publishExpiry publishes the remaining validity of each certificate to statsd.
func (p *Publisher) publishExpiry(now time.Time) {
	if p.statsd == nil {
		return // /metrics computes them for each response
	}
	f := p.set.family(expiryFamily)
	p.o.Expiries(func(use, name, endpoint string, notAfter time.Time) {
		p.statsd.SetGaugeWithLabels(f.parts, float32(notAfter.Sub(now).Seconds()),
			[]metrics.Label{label("use", use), label("name", name), label("endpoint", endpoint)})
	})
}

// expiryFamily is the remaining validity of each certificate. For a trust bundle, the CA
// and the revocation list that expire first count.
const expiryFamily = "certs.expires_in_seconds"
