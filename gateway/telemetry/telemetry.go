package telemetry

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"sync"
	"time"

	"github.com/armon/go-metrics"
	prometheussink "github.com/armon/go-metrics/prometheus"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/drawbridge-gateway/drawbridge/bridge/accesslog"
	"github.com/drawbridge-gateway/drawbridge/gateway/listeners"
	"github.com/drawbridge-gateway/drawbridge/gateway/snapshot"
)

// publishEvery is how often counts are published to statsd.
const publishEvery = 10 * time.Second

// forgetAfter is how long a metric stays after its last publication, so that the
// metrics of a removed listener or upstream disappear.
const forgetAfter = 10 * time.Minute

// Options hold the sources and the destination of values. Only LogDropped,
// AccessLog, Fleet and Statsd may be zero.
type Options struct {
	Live        func() *snapshot.Snapshot
	Listeners   *listeners.Set
	Descriptors *listeners.Descriptors
	AccessLog   *accesslog.Logger // nil: no access log
	LogDropped  func() uint64     // nil: the log never drops lines

	// Problems returns how many resources are down.
	Problems func() int

	// Expiries calls yield once for each resource and endpoint with certificates in use,
	// with the time at which the first of them expires.
	Expiries func(yield func(use, name, endpoint string, notAfter time.Time))

	// Fleet returns the state of the gateway's connection to its fleet. Nil: the gateway
	// belongs to no fleet.
	Fleet func() Fleet

	// Started is when the process started.
	Started time.Time

	// Statsd is the UDP address, host:port, of a statsd server. Empty: none.
	Statsd string
}

// A Fleet describes a gateway's connection to its fleet.
type Fleet struct {
	Connected, Diverged bool
	Duplicate           bool      // another gateway uses the ID of this one
	Head, Copy          int64     // revisions
	Contacted           time.Time // zero: never
}

// A Publisher turns the atomic counters of the hot paths into metrics: whenever
// /metrics is read and, for statsd, on a tick. Its methods may be called concurrently.
type Publisher struct {
	o        Options
	registry *prometheus.Registry
	statsd   *metrics.StatsdSink // nil: no statsd

	live    *metrics.Metrics // metrics of the gateway; each is dropped some time after its last publication
	process *metrics.Metrics // metrics of the process; never dropped

	mu         sync.Mutex      // held while values are published
	pauses     uint64          // last published value
	accessLog  accesslog.Stats // last published values
	logDropped uint64          // last published value
	set        *seriesSet      // series of live objects; each is dropped some time after its object
	records    map[any]*record // records by live object
	round      int             // counts publications of all live objects
	now        int64           // time of the publication, in seconds since the start
	looked     int             // how many series were compared in searches, for tests

	removing       bool  // the objects being published are no longer live
	removedRecords []any // keys of these objects in records

	removed removals
}

// New returns a publisher. The caller must close it.
func New(o Options) (*Publisher, error) {
	p := &Publisher{
		o: o, registry: prometheus.NewRegistry(), removed: removals{wake: make(chan struct{}, 1)},
		set: newSeriesSet(), records: map[any]*record{},
	}
	p.registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	if o.Statsd != "" {
		if _, err := net.ResolveUDPAddr("udp", o.Statsd); err != nil {
			return nil, fmt.Errorf("statsd address %q: it must be host:port: %w", o.Statsd, err)
		}
		var err error
		if p.statsd, err = metrics.NewStatsdSink(o.Statsd); err != nil {
			return nil, fmt.Errorf("statsd: %w", err)
		}
	}
	var err, processErr error
	p.live, err = p.newMetrics("live", forgetAfter)
	p.process, processErr = p.newMetrics("process", 0)
	return p, errors.Join(err, processErr)
}

// newMetrics returns metrics that expire if they are not published for the
// given time; 0: never.
func (p *Publisher) newMetrics(name string, forget time.Duration) (*metrics.Metrics, error) {
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
	config.EnableRuntimeMetrics = false // the Go collector has them, and the goroutine of go-metrics never ends
	return metrics.New(config, sinks)
}

// Process returns the metrics of the process, which are counted as events happen.
func (p *Publisher) Process() *metrics.Metrics { return p.process }

// CountApply counts an edit by its result.
func (p *Publisher) CountApply(result string) {
	p.process.IncrCounterWithLabels([]string{"gateway", "applies"}, 1, []metrics.Label{label("result", result)})
}

// Close ends the connection to statsd.
func (p *Publisher) Close() {
	if p.statsd != nil {
		p.statsd.Shutdown()
	}
}

// Run publishes to statsd on a tick until ctx ends, including the last counts of removed
// objects. Without statsd it does not publish live objects, because there may be tens of
// thousands: each read of /metrics publishes them.
func (p *Publisher) Run(ctx context.Context) {
	var due <-chan time.Time
	if p.statsd != nil {
		tick := time.NewTicker(publishEvery)
		defer tick.Stop()
		due = tick.C
	}
	for {
		select {
		case <-ctx.Done():
			return
		case <-due:
			p.publish()
		case <-p.removed.wake:
			p.publishRemoved()
		}
	}
}

// publish publishes everything.
func (p *Publisher) publish() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.begin()
	p.round++
	snap := p.o.Live()
	p.o.Listeners.Each(p.publishListener)
	for _, u := range snap.Upstreams() {
		p.publishUpstream(u)
	}
	p.publishLast(snap)
	maps.DeleteFunc(p.records, func(_ any, r *record) bool { return r.round != p.round })
	p.set.sweep(p.now, forgetAfter)
	p.publishGateway(snap, time.Now())
}

// begin sets the time of a publication.
func (p *Publisher) begin() { p.now = int64(time.Since(p.o.Started) / time.Second) }

// publishRemoved publishes the last counts of removed objects.
func (p *Publisher) publishRemoved() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.begin()
	p.publishLast(p.o.Live())
}
