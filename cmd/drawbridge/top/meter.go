package top

import (
	"context"
	"time"

	"github.com/drawbridge-gateway/drawbridge/cmd/drawbridge/client"
	"github.com/drawbridge-gateway/drawbridge/cmd/drawbridge/format"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

// A reading holds the counts of a gateway at one moment.
type reading struct {
	at          time.Time
	status      *adminv1.GetStatusResponse
	upstreams   []*adminv1.UpstreamStatus
	connections []*adminv1.Connection // read only if the view shows them
	counts      map[counter]int64
	failures    map[string]int64 // the number of failures by reason
}

// A counter is the name of a count that only grows.
type counter struct{ of, what string }

// The counters.
const (
	accepted  = "accepted"
	requests  = "requests"
	received  = "received"
	sent      = "sent"
	failed    = "failed"
	connected = "connected"
)

// read reads the counts that a view shows.
func read(ctx context.Context, cl *client.Client, v view) (*reading, error) {
	r := &reading{counts: map[counter]int64{}, failures: map[string]int64{}}
	var err error
	if r.status, err = cl.WholeStatus(ctx); err != nil {
		return nil, err
	}
	if r.upstreams, err = cl.UpstreamStatuses(ctx); err != nil {
		return nil, err
	}
	if v == connections {
		if r.connections, err = cl.Connections(ctx, nil); err != nil {
			return nil, err
		}
	}
	r.at = time.Now()
	r.count()
	return r, nil
}

func (r *reading) count() {
	fail := func(of, prefix string, all []*adminv1.FailureCount) {
		for _, f := range all {
			r.counts[counter{of, failed}] += f.GetCount()
			r.failures[prefix+format.Word(f.GetReason())] += f.GetCount()
		}
	}
	for _, l := range r.status.GetListeners() {
		of := listenerKey(l)
		for what, n := range map[string]int64{accepted: l.GetAccepted(), requests: l.GetRequests(), received: l.GetBytesReceived(), sent: l.GetBytesSent(), failed: l.GetServerErrors() + l.GetConnectionsLost()} {
			r.counts[counter{of, what}] += n
		}
		fail(of, "client ", l.GetHandshakeFailures())
	}
	for _, u := range r.upstreams {
		for _, e := range u.GetEndpoints() {
			of := endpointKey(u, e)
			r.counts[counter{of, connected}] += e.GetConnectionsMade()
			r.counts[counter{of, requests}] += e.GetRequests()
			fail(of, "", e.GetFailures())
		}
	}
	for _, c := range r.connections {
		for _, s := range []*adminv1.ConnectionSide{c.GetClient(), c.GetServer()} {
			if s != nil {
				r.counts[counter{c.GetId(), received}], r.counts[counter{c.GetId(), sent}] = s.GetBytesReceived(), s.GetBytesSent()
				break
			}
		}
	}
}

func listenerKey(l *adminv1.ListenerStatus) string {
	return "listener " + l.GetName() + " " + l.GetState().String()
}

func endpointKey(u *adminv1.UpstreamStatus, e *adminv1.EndpointStatus) string {
	return "upstream " + u.GetName() + " " + e.GetAddress()
}

// A meter holds the latest reading and the one before it.
type meter struct {
	now, before *reading
	failures    map[string]int64 // the number since the first reading, by reason
}

// add makes r the latest reading.
func (m *meter) add(r *reading) {
	if m.now == nil {
		m.failures = map[string]int64{}
	} else {
		for reason, n := range r.failures {
			m.failures[reason] += grown(n, m.now.failures[reason])
		}
	}
	m.before, m.now = m.now, r
}

// grown returns how much a count has grown. A count restarts at 0 when its resource is
// replaced.
func grown(now, before int64) int64 {
	if now < before {
		return now
	}
	return now - before
}

// rate returns how much a count has grown per second between the last two readings. It is
// unknown if the earlier reading lacks the count.
func (m *meter) rate(of, what string) (perSecond float64, known bool) {
	if m.before == nil {
		return 0, false
	}
	k := counter{of, what}
	before, has := m.before.counts[k]
	seconds := m.now.at.Sub(m.before.at).Seconds()
	if !has || seconds <= 0 {
		return 0, false
	}
	return float64(grown(m.now.counts[k], before)) / seconds, true
}
