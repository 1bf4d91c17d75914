package telemetry

import (
	"slices"

	"github.com/armon/go-metrics"

	"github.com/drawbridge-gateway/drawbridge/bridge/latency"
)

// A record holds the values last published for one live object. A counter adds the
// increase since then, because an earlier object may have had the same labels.
type record struct {
	group *group
	last  []published // in the order in which the object publishes them
	round int         // number of the last publication
}

// published is the last value of one series of an object.
type published struct {
	series *series
	value  float64
	counts *latency.Counts // counts of a histogram; nil: none yet
}

// An object publishes the counts of one live object.
type object struct {
	p    *Publisher
	of   *record
	next int // the index in of.last that the next series probably has
}

// object returns an object that publishes the counts of a live object.
func (p *Publisher) object(live any, labels ...pair) *object {
	r := p.records[live]
	if r == nil {
		r = new(record)
		p.records[live] = r
	}
	if r.group == nil || r.group.dropped {
		r.group = p.set.group(labels...)
	}
	r.group.seen, r.round = p.now, p.round
	if p.removing {
		p.removedRecords = append(p.removedRecords, live)
	}
	return &object{p: p, of: r}
}

// published returns the entry of a series, or a new entry if the object did not publish
// the series before.
func (o *object) published(name string, x extras) *published {
	last := o.of.last
	is := func(i int) bool {
		o.p.looked++
		one := last[i].series
		return one.family.dotted == name && *one.extras == x
	}
	at := o.next
	if at >= len(last) || !is(at) {
		for at = 0; at < len(last) && !is(at); at++ {
		}
	}
	if at == len(last) {
		o.of.last = append(last, published{series: o.p.set.series(o.of.group, o.p.set.family(name), x)})
	}
	o.next = at + 1
	e := &o.of.last[at]
	if e.series.dropped { // the series was not published for a long time
		e.series = o.p.set.series(o.of.group, e.series.family, x)
	}
	e.series.seen = o.p.now
	return e
}

func (o *object) gauge(name string, v float64) {
	if o.p.removing {
		return // a live object of the same name may have the series
	}
	one := o.published(name, extras{}).series
	one.value = v
	if o.p.statsd != nil {
		o.p.statsd.SetGaugeWithLabels(one.family.parts, float32(v), o.statsdLabels(nil))
	}
}

// counter publishes a count, with up to two labels.
func (o *object) counter(name string, v float64, labels ...pair) {
	var x extras
	copy(x[:], labels)
	e := o.published(name, x)
	increase := v - e.value
	e.value = v
	e.series.value += increase
	if o.p.statsd != nil {
		o.p.statsd.IncrCounterWithLabels(e.series.family.parts, float32(increase), o.statsdLabels(labels))
	}
}

// publishByReason publishes counts by reason, with up to one label before the reason.
func publishByReason[R ~string](o *object, name string, counts map[R]uint64, labels ...pair) {
	for reason, n := range counts {
		o.counter(name, float64(n), append(labels, pair{"reason", string(reason)})...)
	}
}

// histogram publishes durations that the object has counted. An empty histogram has no
// information and is left out.
func (o *object) histogram(name string, now latency.Counts, labels ...pair) {
	if now.Count() == 0 {
		return
	}
	var x extras
	copy(x[:], labels)
	e := o.published(name, x)
	if e.counts == nil {
		e.counts = new(latency.Counts)
	}
	if e.series.counts == nil {
		e.series.counts = new(latency.Counts)
	}
	e.series.counts.Add(&now, e.counts)
	*e.counts = now
}

// statsdLabels returns the labels of a series whose values end its name in statsd.
func (o *object) statsdLabels(further []pair) []metrics.Label {
	var out []metrics.Label
	for _, l := range slices.Concat(further, o.of.group.labels) {
		out = append(out, label(l.name, l.value))
	}
	return out
}

func label(name, value string) metrics.Label { return metrics.Label{Name: name, Value: value} }

// indicator returns the value of a gauge that is 1 if set, else 0.
func indicator(set bool) float64 {
	if set {
		return 1
	}
	return 0
}
