package telemetry

import (
	"cmp"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/drawbridge-gateway/drawbridge/bridge/latency"
)

// A family is one metric of live objects.
type family struct {
	dotted string // the dotted name, such as "bridge.http.in_flight"
	name   string // the name in /metrics
	kind   string // counter, gauge or histogram
	help   string
	order  int      // position among all families
	parts  []string // parts of the name in statsd
}

// A catalog holds the families of Table by their dotted names.
type catalog struct {
	byName map[string]*family // by the name in Table
	byDots map[string]*family // used families by their dotted names
}

func newCatalog() *catalog {
	c := &catalog{map[string]*family{}, map[string]*family{}}
	for _, g := range Table {
		for _, m := range g.Metrics {
			c.byName[m.Name] = &family{name: prefix + m.Name, kind: m.Type, help: plain(m.Help)}
		}
	}
	for i, name := range slices.Sorted(maps.Keys(c.byName)) {
		c.byName[name].order = i
	}
	return c
}

// family returns the family of the dotted name.
func (c *catalog) family(dotted string) *family {
	if f := c.byDots[dotted]; f != nil {
		return f
	}
	f := c.byName[strings.ReplaceAll(dotted, ".", "_")]
	if f == nil {
		panic("telemetry: Table lacks the metric " + dotted)
	}
	f.dotted, f.parts = dotted, slices.Clip(strings.Split("drawbridge."+dotted, "."))
	c.byDots[dotted] = f
	return f
}

// used returns the families that were used, in order.
func (c *catalog) used() []*family {
	return slices.SortedFunc(maps.Values(c.byDots), func(a, b *family) int { return cmp.Compare(a.order, b.order) })
}

// A pair is a label and its value.
type pair struct{ name, value string }

func (p pair) compare(o pair) int { return strings.Compare(p.name, o.name) }

// extras are the labels of a series besides the labels of its object. Unused extras
// are zero.
type extras [2]pair

// A series is one line of /metrics, or a histogram's lines.
type series struct {
	family  *family
	extras  *extras // shared by all series with equal extras
	value   float64
	counts  *latency.Counts // counts of a histogram
	seen    int64           // when it was last published, in seconds since the start
	dropped bool            // the series was dropped
}

// A group holds the series of all objects with the same labels.
type group struct {
	labels  []pair    // in the order of the caller
	sorted  []pair    // sorted by name, with escaped values
	series  []*series // sorted by family
	version int       // changes with the list of series
	seen    int64     // like series.seen, for the last object
	dropped bool      // the group was dropped
}

// A seriesSet holds the series of live objects and, for some time, of removed objects.
// Its size is about 100 bytes for each line of /metrics.
type seriesSet struct {
	*catalog
	byLabels map[string]*group
	groups   []*group
	shared   map[extras]*extras
	swept    int64 // when series were last dropped
}

func newSeriesSet() *seriesSet {
	return &seriesSet{catalog: newCatalog(), byLabels: map[string]*group{}, shared: map[extras]*extras{}}
}

// group returns the group of the labels.
func (s *seriesSet) group(labels ...pair) *group {
	key := labels[0].name + "\x00" + labels[0].value
	for _, l := range labels[1:] {
		key += "\x00" + l.name + "\x00" + l.value
	}
	g := s.byLabels[key]
	if g == nil {
		g = &group{labels: slices.Clone(labels)}
		for _, l := range labels {
			g.sorted = append(g.sorted, pair{l.name, escape(l.value)})
		}
		slices.SortFunc(g.sorted, pair.compare)
		s.byLabels[key] = g
		s.groups = append(s.groups, g)
	}
	return g
}

// series returns a series of the group, and creates it if needed.
func (s *seriesSet) series(g *group, f *family, x extras) *series {
	at, _ := slices.BinarySearchFunc(g.series, f.order, func(have *series, order int) int { return cmp.Compare(have.family.order, order) })
	for ; at < len(g.series) && g.series[at].family == f; at++ {
		if *g.series[at].extras == x {
			return g.series[at]
		}
	}
	shared := s.shared[x]
	if shared == nil {
		shared = &x
		s.shared[x] = shared
	}
	one := &series{family: f, extras: shared}
	g.series = slices.Insert(g.series, at, one)
	g.version++
	return one
}

// sweep drops the series that were not published for the given time.
func (s *seriesSet) sweep(now int64, forget time.Duration) {
	least := now - int64(forget/time.Second)
	if now-s.swept < int64(forget/time.Second)/10 {
		return
	}
	s.swept = now
	for key, g := range s.byLabels {
		before := len(g.series)
		g.series = slices.DeleteFunc(g.series, func(one *series) bool {
			one.dropped = one.seen < least
			return one.dropped
		})
		if len(g.series) < before {
			g.version++
		}
		if g.dropped = len(g.series) == 0 && g.seen < least; g.dropped {
			delete(s.byLabels, key)
		}
	}
	// A clone, because a response may be reading the list.
	s.groups = slices.DeleteFunc(slices.Clone(s.groups), func(g *group) bool { return g.dropped })
}
