package telemetry

import (
	"fmt"
	"strings"
	"time"

	"github.com/armon/go-metrics"

	"github.com/drawbridge-gateway/drawbridge/bridge/latency"
)

// An object publishes the counts of one live object. It adds the increase of each
// counter since the last publication, because an earlier object may have had the
// same name.
type object struct {
	p      *Publisher
	labels []metrics.Label
	before published
	now    published
}

// published holds the last published values of an object's counters and
// histograms, by their names and labels.
type published struct {
	values map[string]float64
	counts map[string]latency.Counts
}

// object returns the object to publish the counts of a live object with.
func (p *Publisher) object(live any, labels ...metrics.Label) *object {
	p.next[live] = published{map[string]float64{}, map[string]latency.Counts{}}
	return &object{p, labels, p.last[live], p.next[live]}
}

func (o *object) gauge(name []string, v float64) {
	if o.p.removing {
		return // it may be that of a live object of the same name
	}
	o.p.live.SetGaugeWithLabels(name, float32(v), o.labels)
}

func (o *object) counter(name []string, v float64, labels ...metrics.Label) {
	key := fmt.Sprint(name, labels)
	o.now.values[key] = v
	o.p.live.IncrCounterWithLabels(name, float32(v-o.before.values[key]), append(labels, o.labels...))
}

// histogram publishes durations that the object has counted. The labels are the
// object's own followed by those given, in the order of histogramDescs.
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

func label(name, value string) metrics.Label { return metrics.Label{Name: name, Value: value} }

// indicator returns a fact as the value of a gauge.
func indicator(fact bool) float64 {
	if fact {
		return 1
	}
	return 0
}
