package telemetry

import (
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/drawbridge-gateway/drawbridge/bridge/latency"
)

// A listener that reuses a name continues the counts of the earlier one, and the counts
// of removed listeners expire.
func TestHistogramsOutliveTheObjectsThatCount(t *testing.T) {
	p := &Publisher{}
	registry := prometheus.NewRegistry()
	registry.MustRegister(&p.histograms)
	publish := func(h *latency.Histogram) {
		p.next = map[any]published{}
		p.object(h, label("listener", "db")).histogram("bridge_conn_duration_seconds", h.Counts())
		p.last = p.next
	}
	var first, second latency.Histogram
	publish(&first)
	if all, err := registry.Gather(); len(all) != 0 || err != nil {
		t.Errorf("an empty histogram is shown: %v, %v", all, err)
	}
	first.Observe(time.Millisecond)
	publish(&first)
	first.Observe(3 * time.Millisecond)
	publish(&first)
	publish(&first) // without change
	second.Observe(3 * time.Millisecond)
	second.Observe(time.Hour)
	publish(&second)
	all, err := registry.Gather()
	if len(all) != 1 || len(all[0].GetMetric()) != 1 || err != nil {
		t.Fatal(all, err)
	}
	metric := all[0].GetMetric()[0]
	h := metric.GetHistogram()
	within := map[float64]uint64{}
	for _, b := range h.GetBucket() {
		within[b.GetUpperBound()] = b.GetCumulativeCount()
	}
	if h.GetSampleCount() != 4 || h.GetSampleSum() != 3600.007 || within[0.0005] != 0 || within[0.001] != 1 || within[0.002] != 1 || within[0.004] != 3 || within[65.536] != 3 {
		t.Errorf("%v", h)
	}
	if l := metric.GetLabel(); len(l) != 1 || l[0].GetName() != "listener" || l[0].GetValue() != "db" {
		t.Errorf("labels %v", l)
	}
	for _, series := range p.histograms.series {
		series.seen = series.seen.Add(-forgetAfter)
	}
	if all, err := registry.Gather(); len(all) != 0 || err != nil || len(p.histograms.series) != 0 {
		t.Errorf("still shown: %v, %v", all, err)
	}
}
