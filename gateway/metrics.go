package gateway

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/armon/go-metrics"
	prometheussink "github.com/armon/go-metrics/prometheus"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/drawbridge-gateway/drawbridge/bridge/accesslog"
	"github.com/drawbridge-gateway/drawbridge/bridge/l4"
	"github.com/drawbridge-gateway/drawbridge/bridge/l7"
	"github.com/drawbridge-gateway/drawbridge/bridge/latency"
	"github.com/drawbridge-gateway/drawbridge/bridge/limit"
	"github.com/drawbridge-gateway/drawbridge/bridge/proxyproto"
	"github.com/drawbridge-gateway/drawbridge/bridge/upstream"
	"github.com/drawbridge-gateway/drawbridge/certs"
	"github.com/drawbridge-gateway/drawbridge/gateway/listeners"
	"github.com/drawbridge-gateway/drawbridge/gateway/store"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

// publishEvery is how often counts are published to statsd.
const publishEvery = 10 * time.Second

// forgetAfter is how long a metric stays after its last publication, so that the
// metrics of a removed listener or upstream disappear.
const forgetAfter = 10 * time.Minute

// A publisher turns the atomic counters of the hot paths into metrics: on a tick,
// and whenever /metrics is read.
type publisher struct {
	*metrics.Metrics // of live objects; each is dropped some time after its object

	// process holds the metrics of the process, which are counted as events happen.
	// Its counters never expire.
	process *metrics.Metrics

	gateway  *Gateway
	registry *prometheus.Registry
	statsd   *metrics.StatsdSink // nil: none

	histograms histograms

	mu         sync.Mutex
	pauses     uint64            // as last published
	accessLog  accesslog.Stats   // likewise
	logDropped uint64            // likewise
	last       map[any]published // by live object
}

// published holds the last published values of an object's counters and
// histograms, by their names and labels.
type published struct {
	values map[string]float64
	counts map[string]latency.Counts
}

func newPublisher(g *Gateway, statsd string) (*publisher, error) {
	p := &publisher{gateway: g, registry: prometheus.NewRegistry(), last: map[any]published{}}
	p.registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}), &p.histograms)
	if statsd != "" {
		if _, err := net.ResolveUDPAddr("udp", statsd); err != nil {
			return nil, fmt.Errorf("statsd address %q: it must be host:port: %w", statsd, err)
		}
		var err error
		if p.statsd, err = metrics.NewStatsdSink(statsd); err != nil {
			return nil, fmt.Errorf("statsd: %w", err)
		}
	}
	var err, processErr error
	p.Metrics, err = p.newMetrics("live", forgetAfter)
	p.process, processErr = p.newMetrics("process", 0)
	return p, errors.Join(err, processErr)
}

// newMetrics returns metrics that expire when they were not published for the
// given time; 0: never.
func (p *publisher) newMetrics(name string, forget time.Duration) (*metrics.Metrics, error) {
	prom, err := prometheussink.NewPrometheusSinkFrom(prometheussink.PrometheusOpts{Name: name, Expiration: forget, Registerer: p.registry})
	if err != nil {
		return nil, fmt.Errorf("metrics: %w", err)
	}
	sinks := metrics.FanoutSink{prom}
	if p.statsd != nil {
		sinks = append(sinks, p.statsd)
	}
	config := metrics.DefaultConfig("drawbridge")
	config.EnableHostname = false
	config.EnableRuntimeMetrics = false // the Go collector has them, and its goroutine never ends
	return metrics.New(config, sinks)
}

func (p *publisher) close() {
	if p.statsd != nil {
		p.statsd.Shutdown()
	}
}

// run publishes on a tick until ctx ends.
func (p *publisher) run(ctx context.Context) {
	tick := time.NewTicker(publishEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			p.publish()
		}
	}
}

func (p *publisher) handler() http.Handler {
	h := promhttp.HandlerFor(p.registry, promhttp.HandlerOpts{})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p.publish()
		h.ServeHTTP(w, r)
	})
}

// An object publishes the counts of one live object. It adds the increase of each
// counter since the last publication, because an earlier object may have had the
// same name.
type object struct {
	p      *publisher
	labels []metrics.Label
	before published
	now    published
}

func (o *object) gauge(name []string, v float64) {
	o.p.SetGaugeWithLabels(name, float32(v), o.labels)
}

func (o *object) counter(name []string, v float64, labels ...metrics.Label) {
	key := fmt.Sprint(name, labels)
	o.now.values[key] = v
	o.p.IncrCounterWithLabels(name, float32(v-o.before.values[key]), append(labels, o.labels...))
}

// publish publishes everything.
func (p *publisher) publish() {
	p.mu.Lock()
	defer p.mu.Unlock()
	next := map[any]published{}
	object := func(live any, labels ...metrics.Label) *object {
		next[live] = published{map[string]float64{}, map[string]latency.Counts{}}
		return &object{p, labels, p.last[live], next[live]}
	}
	snap := p.gateway.live.Load()
	p.gateway.listeners.Each(func(r *listeners.Running) {
		o := object(r, label("listener", r.Name))
		if r.HTTP != nil {
			publishHTTP(o, r.HTTP.Stats())
		} else {
			publishTCP(o, r.TCP.Stats())
		}
	})
	for _, u := range snap.Upstreams() {
		unverified := float32(0)
		if u.Unverified {
			unverified = 1
		}
		publishLatencies(object(u.Latencies, label("upstream", u.Name)), u.Latencies)
		p.SetGaugeWithLabels([]string{"upstream", "unverified"}, unverified, []metrics.Label{label("upstream", u.Name)})
		live := object(u.Live, label("upstream", u.Name))
		publishUpstream(live, u.Live)
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
			publishEndpoint(object(e.Of, label("upstream", u.Name), label("endpoint", e.Address)), e)
		}
	}
	p.last = next

	now := time.Now()
	p.publishExpiry(now)
	p.SetGauge([]string{"gateway", "revision"}, float32(snap.State().Revision()))
	p.SetGauge([]string{"gateway", "problems"}, float32(len(p.gateway.problems(snap))))
	p.SetGauge([]string{"gateway", "warnings"}, float32(len(snap.Standing())))
	p.publishDescriptors()
	p.publishAccessLog()
	p.publishLog()
	p.SetGauge([]string{"gateway", "uptime_seconds"}, float32(now.Sub(p.gateway.started).Seconds()))
	for _, k := range store.Kinds() {
		p.SetGaugeWithLabels([]string{"gateway", "resources"}, float32(snap.State().Len(k)), []metrics.Label{label("kind", strings.ReplaceAll(store.KindName(k), " ", "_"))})
	}
}

// publishDescriptors publishes how the process's file descriptors are used, and how
// many listeners are paused because they are short.
func (p *publisher) publishDescriptors() {
	d := p.gateway.descriptors
	limit, clients, upstreams := d.Usage()
	paused, pauses := d.Paused()
	for use, n := range map[string]int{"limit": limit, "clients": clients, "upstreams": upstreams} {
		p.SetGaugeWithLabels([]string{"gateway", "descriptors"}, float32(n), []metrics.Label{label("use", use)})
	}
	p.SetGauge([]string{"gateway", "listeners_paused"}, float32(paused))
	p.process.IncrCounter([]string{"gateway", "pauses"}, float32(pauses-p.pauses))
	p.pauses = pauses
}

// publishAccessLog publishes how many records the access log wrote and dropped, if
// there is an access log.
func (p *publisher) publishAccessLog() {
	log := p.gateway.accessLog
	if log == nil {
		return
	}
	now := log.Stats()
	for result, n := range map[string]uint64{"written": now.Written - p.accessLog.Written, "dropped": now.Dropped - p.accessLog.Dropped} {
		p.process.IncrCounterWithLabels([]string{"access_log", "records"}, float32(n), []metrics.Label{label("result", result)})
	}
	p.process.IncrCounter([]string{"access_log", "failed_writes"}, float32(now.Failures-p.accessLog.Failures))
	p.accessLog = now
}

// publishLog publishes how many log lines were dropped.
func (p *publisher) publishLog() {
	if p.gateway.logDropped == nil {
		return
	}
	now := p.gateway.logDropped()
	p.process.IncrCounter([]string{"gateway", "log_dropped"}, float32(now-p.logDropped))
	p.logDropped = now
}

// publishExpiry publishes how long each certificate is still valid. Of a trust
// bundle's CAs, and of its revocation lists, the first to expire counts.
func (p *publisher) publishExpiry(now time.Time) {
	type key struct{ use, name, endpoint string }
	seen := map[key]bool{}
	for _, c := range p.gateway.Certificates() { // soonest first
		k := key{useName(c.GetUse()), c.GetName(), c.GetEndpoint()}
		if seen[k] {
			continue
		}
		seen[k] = true
		p.SetGaugeWithLabels([]string{"certs", "expires_in_seconds"}, float32(c.GetInfo().GetNotAfter().AsTime().Sub(now).Seconds()),
			[]metrics.Label{label("use", k.use), label("name", k.name), label("endpoint", k.endpoint)})
	}
}

func label(name, value string) metrics.Label { return metrics.Label{Name: name, Value: value} }

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

func publishLatencies(o *object, l *upstream.Latencies) {
	o.histogram("upstream_dial_duration_seconds", l.Connect.Counts(), label("phase", "tcp"))
	o.histogram("upstream_dial_duration_seconds", l.Handshake.Counts(), label("phase", "tls"))
	o.histogram("upstream_response_head_seconds", l.Head.Counts())
}

func publishDNS(o *object, d *upstream.DNSStatus, endpoints int) {
	o.gauge([]string{"upstream", "dns", "endpoints"}, float64(endpoints))
	o.counter([]string{"upstream", "dns", "lookups"}, float64(d.Asked-d.Failed), label("result", "ok"))
	o.counter([]string{"upstream", "dns", "lookups"}, float64(d.Failed), label("result", "failed"))
	if !d.Resolved.IsZero() {
		o.gauge([]string{"upstream", "dns", "age_seconds"}, time.Since(d.Resolved).Seconds())
	}
}

func publishUpstream(o *object, u *upstream.Upstream) {
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
		available := 0.0
		if e.Available {
			available = 1
		}
		o.gauge([]string{"upstream", "available"}, available)
	}
	health := 0.0
	if e.Health == upstream.Up {
		health = 1
	}
	if e.Health != upstream.Unknown && !e.Left {
		o.gauge([]string{"upstream", "up"}, health)
	}
}

// countApply counts an edit by its result, and logs the revision that it made live.
func (g *Gateway) countApply(e store.Edit, result *store.Result, err error) {
	outcome := "unchanged"
	switch {
	case err != nil:
		outcome = "refused"
	case e.DryRun:
		outcome = "dry_run"
	default:
		counts := map[adminv1.ChangeAction]int{}
		for _, c := range result.Changes {
			counts[c.Action]++
		}
		created, updated, deleted := counts[adminv1.ChangeAction_CHANGE_ACTION_CREATED], counts[adminv1.ChangeAction_CHANGE_ACTION_UPDATED], counts[adminv1.ChangeAction_CHANGE_ACTION_DELETED]
		if created+updated+deleted > 0 {
			outcome = "applied"
			g.log.Info("revision live", "revision", result.State.Revision(), "created", created, "updated", updated, "deleted", deleted,
				"warnings", len(result.Warnings), "comment", e.Comment)
		}
	}
	g.metrics.process.IncrCounterWithLabels([]string{"gateway", "applies"}, 1, []metrics.Label{label("result", outcome)})
}
