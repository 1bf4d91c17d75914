package gateway

import (
	"strings"
	"sync"
	"time"

	"github.com/armon/go-metrics"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/drawbridge-gateway/drawbridge/bridge/latency"
)

// Histograms that there are, by name. Their labels are in this order.
var histogramDescs = map[string]*prometheus.Desc{
	"bridge_http_duration_seconds":   describeHistogram("bridge_http_duration_seconds", "listener", "code"),
	"bridge_conn_duration_seconds":   describeHistogram("bridge_conn_duration_seconds", "listener"),
	"bridge_conn_first_byte_seconds": describeHistogram("bridge_conn_first_byte_seconds", "listener"),
	"upstream_dial_duration_seconds": describeHistogram("upstream_dial_duration_seconds", "upstream", "phase"),
	"upstream_response_head_seconds": describeHistogram("upstream_response_head_seconds", "upstream"),
}

func describeHistogram(name string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("drawbridge_"+name, "drawbridge_"+name, labels, nil)
}

// histograms shows what live objects have counted in buckets, of which go-metrics
// has none. Like its metrics, they add up what objects of the same labels have
// counted one after the other, and are forgotten some time after the last is gone.
type histograms struct {
	mu     sync.Mutex
	series map[string]*histogram // by name and values of labels
}

// A histogram is that of a name and values of labels.
type histogram struct {
	desc   *prometheus.Desc
	values []string
	counts latency.Counts
	seen   time.Time // when it was published last
}

// add adds what was counted between before and now.
func (h *histograms) add(name string, values []string, now, before *latency.Counts, at time.Time) {
	key := name + "\x00" + strings.Join(values, "\x00")
	h.mu.Lock()
	defer h.mu.Unlock()
	s := h.series[key]
	if s == nil {
		if h.series == nil {
			h.series = map[string]*histogram{}
		}
		s = &histogram{desc: histogramDescs[name], values: values}
		h.series[key] = s
	}
	s.counts.Add(now, before)
	s.seen = at
}

// Describe implements prometheus.Collector.
func (h *histograms) Describe(to chan<- *prometheus.Desc) {
	for _, d := range histogramDescs {
		to <- d
	}
}

// Collect implements prometheus.Collector.
func (h *histograms) Collect(to chan<- prometheus.Metric) {
	bounds := latency.Bounds()
	h.mu.Lock()
	defer h.mu.Unlock()
	for key, s := range h.series {
		if time.Since(s.seen) > forgetAfter {
			delete(h.series, key)
			continue
		}
		count := s.counts.Count()
		if count == 0 {
			continue // nobody asks how long it took that never happened
		}
		within, buckets := uint64(0), make(map[float64]uint64, len(bounds))
		for i, bound := range bounds {
			within += s.counts.Buckets[i]
			buckets[bound.Seconds()] = within
		}
		to <- prometheus.MustNewConstHistogram(s.desc, count, s.counts.Total.Seconds(), buckets, s.values...)
	}
}

// histogram publishes durations that the object has counted. Labels are the
// object's own and then those given, in the order that histogramDescs has them.
func (o *object) histogram(name string, now latency.Counts, labels ...metrics.Label) {
	values := make([]string, 0, len(o.labels)+len(labels))
	for _, l := range o.labels {
		values = append(values, l.Value)
	}
	for _, l := range labels {
		values = append(values, l.Value)
	}
	key := name + "\x00" + strings.Join(values, "\x00")
	before := o.before.counts[key]
	o.now.counts[key] = now
	o.p.histograms.add(name, values, &now, &before, time.Now())
}
