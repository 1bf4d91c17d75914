package telemetry

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"github.com/drawbridge-gateway/drawbridge/bridge/latency"
)

// testPublisher returns a publisher of objects that a test publishes.
func testPublisher() *Publisher {
	return &Publisher{set: newSeriesSet(), records: map[any]*record{}, o: Options{Expiries: func(func(use, name, endpoint string, end time.Time)) {}}}
}

// page returns the lines of /metrics, without help texts. Prometheus can read them.
func (p *Publisher) page(t *testing.T) string {
	t.Helper()
	var out strings.Builder
	p.write(&out, nil)
	parser := expfmt.NewTextParser(model.UTF8Validation)
	if _, err := parser.TextToMetricFamilies(strings.NewReader(out.String())); err != nil {
		t.Errorf("%v in\n%s", err, out.String())
	}
	var lines []string
	for line := range strings.Lines(out.String()) {
		if !strings.HasPrefix(line, "# HELP ") {
			lines = append(lines, line)
		}
	}
	return strings.Join(lines, "")
}

// A listener that reuses a name continues the counts of the earlier one, and the series
// of removed listeners expire.
func TestSeriesOutliveTheObjectsThatCount(t *testing.T) {
	p := testPublisher()
	publish := func(live any, accepted, open int, h *latency.Histogram) {
		o := p.object(live, pair{"listener", "db"})
		o.gauge("bridge.conn.open", float64(open))
		o.counter("bridge.conn.accepted", float64(accepted))
		o.histogram("bridge.conn.duration_seconds", h.Counts())
	}
	var first, second latency.Histogram
	publish(&first, 0, 0, &first)
	if page := p.page(t); strings.Contains(page, "duration") || !strings.Contains(page, `drawbridge_bridge_conn_accepted{listener="db"} 0`+"\n") {
		t.Errorf("an empty histogram is shown, or a counter is not:\n%s", page)
	}
	first.Observe(time.Millisecond)
	publish(&first, 3, 2, &first)
	first.Observe(3 * time.Millisecond)
	publish(&first, 4, 1, &first)
	publish(&first, 4, 1, &first) // publishes again without a change
	second.Observe(3 * time.Millisecond)
	second.Observe(time.Hour)
	publish(&second, 2, 7, &second)
	page := p.page(t)
	for _, want := range []string{
		"# TYPE drawbridge_bridge_conn_accepted counter\n" + `drawbridge_bridge_conn_accepted{listener="db"} 6` + "\n",
		"# TYPE drawbridge_bridge_conn_open gauge\n" + `drawbridge_bridge_conn_open{listener="db"} 7` + "\n",
		`drawbridge_bridge_conn_duration_seconds_bucket{listener="db",le="0.0005"} 0` + "\n",
		`drawbridge_bridge_conn_duration_seconds_bucket{listener="db",le="0.001"} 1` + "\n",
		`drawbridge_bridge_conn_duration_seconds_bucket{listener="db",le="0.004"} 3` + "\n",
		`drawbridge_bridge_conn_duration_seconds_bucket{listener="db",le="65.536"} 3` + "\n",
		`drawbridge_bridge_conn_duration_seconds_bucket{listener="db",le="+Inf"} 4` + "\n",
		`drawbridge_bridge_conn_duration_seconds_sum{listener="db"} 3600.007` + "\n",
		`drawbridge_bridge_conn_duration_seconds_count{listener="db"} 4` + "\n",
	} {
		if !strings.Contains(page, want) {
			t.Errorf("%q is missing in\n%s", want, page)
		}
	}
	p.now += int64(forgetAfter/time.Second) + 1
	p.set.sweep(p.now, forgetAfter)
	if page := p.page(t); page != "" || len(p.set.groups)+len(p.set.byLabels) > 0 {
		t.Errorf("an expired series is still shown: %s", page)
	}
	publish(&second, 5, 0, &second) // the object still exists, but was not published for a long time
	if page := p.page(t); !strings.Contains(page, `drawbridge_bridge_conn_accepted{listener="db"} 3`+"\n") {
		t.Errorf("after a long time: %s", page)
	}
}

// Further labels are shown in the order of their names, with escaped values, and the
// series of one metric follow each other.
func TestThePageIsGroupedByMetric(t *testing.T) {
	p := testPublisher()
	for i, address := range []string{`a"b\c` + "\n", "z"} {
		o := p.object(i, pair{"upstream", "up"}, pair{"endpoint", address})
		o.counter("upstream.dials", 1, pair{"phase", "tls"})
		o.gauge("upstream.conn.open", 2)
		o.counter("upstream.dials", 3, pair{"phase", "tcp"})
	}
	p.object(2, pair{"upstream", "up"}).counter("upstream.revalidated", 4, pair{"result", "ended"}, pair{"reason", "REVOKED"})
	want := `# TYPE drawbridge_upstream_conn_open gauge
drawbridge_upstream_conn_open{endpoint="a\"b\\c\n",upstream="up"} 2
drawbridge_upstream_conn_open{endpoint="z",upstream="up"} 2
# TYPE drawbridge_upstream_dials counter
drawbridge_upstream_dials{endpoint="a\"b\\c\n",phase="tls",upstream="up"} 1
drawbridge_upstream_dials{endpoint="a\"b\\c\n",phase="tcp",upstream="up"} 3
drawbridge_upstream_dials{endpoint="z",phase="tls",upstream="up"} 1
drawbridge_upstream_dials{endpoint="z",phase="tcp",upstream="up"} 3
# TYPE drawbridge_upstream_revalidated counter
drawbridge_upstream_revalidated{reason="REVOKED",result="ended",upstream="up"} 4
`
	if got := p.page(t); got != want {
		t.Errorf("the page is\n%s\nwant\n%s", got, want)
	}
}

// A response shows each series once, even if series are added and dropped while the
// response is written to a slow reader.
func TestAPageIsWrittenWhileOthersPublish(t *testing.T) {
	p := testPublisher()
	publish := func(from, to int) {
		p.mu.Lock()
		defer p.mu.Unlock()
		for i := from; i < to; i++ {
			o := p.object(i, pair{"listener", fmt.Sprint("l", i)})
			o.counter("bridge.conn.accepted", 1)
			if i%2 == 0 {
				o.counter("bridge.limited", 1, pair{"limit", "rate"})
			}
			o.counter("bridge.bytes", float64(i), pair{"direction", "to_client"})
		}
	}
	publish(0, 2000)
	seen, writes := map[string]int{}, 0
	p.write(writerFunc(func(text string) {
		if writes++; writes == 2 {
			publish(1000, 3000)
			p.mu.Lock()
			for i := range 3000 { // adds series to groups that were partly written
				p.object(i, pair{"listener", fmt.Sprint("l", i)}).counter("bridge.conn.denied", 1)
			}
			p.mu.Unlock()
		}
		for line := range strings.Lines(text) {
			if !strings.HasPrefix(line, "#") {
				seen[line]++
			}
		}
	}), nil)
	if writes < 3 {
		t.Fatalf("%d writes", writes)
	}
	for line, n := range seen {
		if n != 1 {
			t.Errorf("%d times: %s", n, line)
		}
	}
	for i := range 2000 {
		if line := fmt.Sprintf("drawbridge_bridge_conn_accepted{listener=\"l%d\"} 1\n", i); seen[line] != 1 {
			t.Fatalf("%s is missing", line)
		}
	}
}

type writerFunc func(string)

func (f writerFunc) Write(b []byte) (int, error) {
	f(string(b))
	return len(b), nil
}

// Publishing known objects again looks at each series once.
func TestAPublicationFindsEachSeriesAtOnce(t *testing.T) {
	p := testPublisher()
	publish := func() {
		for i := range 100 {
			o := p.object(i, pair{"listener", fmt.Sprint("l", i)})
			for _, name := range []string{"bridge.conn.open", "bridge.conn.accepted", "bridge.conn.rejected", "bridge.conn.denied", "bridge.conn.unrouted"} {
				o.counter(name, 1)
			}
		}
	}
	publish()
	p.looked = 0
	publish()
	if p.looked != 500 {
		t.Errorf("%d series looked at, to publish 500", p.looked)
	}
}

func BenchmarkPublishAndWrite(b *testing.B) {
	p := testPublisher()
	for b.Loop() {
		for i := range 10_000 {
			o := p.object(i, pair{"upstream", fmt.Sprint("u", i)}, pair{"endpoint", "127.0.0.1:9"})
			for _, phase := range []string{"tcp", "tls"} {
				o.counter("upstream.dials", 1, pair{"phase", phase})
				o.counter("upstream.dial.seconds", 1, pair{"phase", phase})
			}
			o.counter("upstream.conn.made", 1)
			o.gauge("upstream.conn.open", 1)
			o.gauge("upstream.in_flight", 1)
			o.gauge("upstream.available", 1)
		}
		p.write(writerFunc(func(string) {}), nil)
	}
}
