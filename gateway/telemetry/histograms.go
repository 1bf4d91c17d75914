package telemetry

import (
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/drawbridge-gateway/drawbridge/bridge/latency"
)

// histogramDescs holds every histogram by name, with its labels in order.
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

// histograms exports the bucket counts of live objects, because go-metrics has no
// histograms. As in go-metrics, the counts of successive objects with the same
// labels add up, and a histogram is dropped some time after its last object.
type histograms struct {
	mu     sync.Mutex
	series map[string]*histogram // by name and label values
}

// A histogram holds the counts of one name and its label values.
type histogram struct {
	desc   *prometheus.Desc
	values []string
	counts latency.Counts
	seen   time.Time // of the last publication
}

// add adds the difference between the counts now and before.
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
			continue // an empty histogram tells a reader nothing
		}
		within, buckets := uint64(0), make(map[float64]uint64, len(bounds))
		for i, bound := range bounds {
			within += s.counts.Buckets[i]
			buckets[bound.Seconds()] = within
		}
		to <- prometheus.MustNewConstHistogram(s.desc, count, s.counts.Total.Seconds(), buckets, s.values...)
	}
}
