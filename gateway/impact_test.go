package gateway

import (
	"context"
	"fmt"
	"maps"
	"net"
	"os"
	"slices"
	"strconv"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/drawbridge-gateway/drawbridge/gateway/listeners"
	"github.com/drawbridge-gateway/drawbridge/gateway/store"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

// impactEdits returns how many random edits to compare. DRAWBRIDGE_IMPACT_EDITS sets it.
func impactEdits(t *testing.T) int {
	if s := os.Getenv("DRAWBRIDGE_IMPACT_EDITS"); s != "" {
		n, err := strconv.Atoi(s)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	return 40
}

// losses are the connections of a listener or an upstream that end.
type losses struct{ closed, drained, requests int64 }

// Under live traffic, a dry run predicts the impact of a write. The response to the
// write reports the same impact, and exactly the counted connections end.
func TestTheImpactMatchesTheConnectionsThatEnd(t *testing.T) {
	w := newImpactTestbed(t, 1)
	lost := losses{}
	for n := range impactEdits(t) {
		w.connect()
		w.settle()
		w.vary()
		e := w.edit()
		e.DryRun = true
		predicted := w.apply(e).Impact
		listenersOf, upstreamsOf := w.before()
		e.DryRun = false
		if answered := w.apply(e).Impact; !proto.Equal(predicted, answered) {
			t.Fatalf("edit %d %v: predicted %v, answered %v", n, w.variant, predicted, answered)
		}
		want := map[string]losses{}
		for _, i := range predicted.GetListeners() {
			want["listener "+i.GetName()] = losses{i.GetConnectionsClosed(), i.GetConnectionsDrained(), i.GetRequestsInFlight()}
		}
		for _, i := range predicted.GetUpstreams() {
			want["upstream "+i.GetName()] = losses{i.GetConnectionsClosed(), i.GetConnectionsDrained(), i.GetRequestsInFlight()}
			lost.closed += i.GetConnectionsClosed()
			lost.drained += i.GetConnectionsDrained()
		}
		maps.DeleteFunc(want, func(_ string, l losses) bool { return l == losses{} })
		w.releaseAll()
		check := func() map[string]losses { return w.since(listenersOf, upstreamsOf) }
		eventuallyEqual(t, fmt.Sprintf("edit %d %v", n, w.variant), want, check)
		w.clients = slices.DeleteFunc(w.clients, func(c *holdClient) bool { return c.ended.Load() })
		for _, c := range w.clients {
			if err := c.request(""); err != nil {
				t.Fatalf("edit %d %v: an untouched connection of %s: %v", n, w.variant, c.listener, err)
			}
		}
		eventuallyEqual(t, fmt.Sprintf("edit %d %v, after requests", n, w.variant), want, check)
	}
	if lost.closed == 0 || lost.drained == 0 {
		t.Errorf("the edits ended too few connections: %+v", lost)
	}
}

func eventuallyEqual(t *testing.T, name string, want map[string]losses, got func() map[string]losses) {
	t.Helper()
	var last map[string]losses
	defer func() {
		if t.Failed() {
			t.Logf("%s: lost %+v, predicted %+v", name, last, want)
		}
	}()
	eventually(t, name, func() bool { last = got(); return maps.Equal(last, want) })
}

// settle waits until only the held requests are in progress, and all connections that
// the gateway was closing are closed.
func (w *impactTestbed) settle() {
	eventually(w.t, "no other request is in progress", func() bool {
		inFlight, clients := map[string]int{}, map[string]int{}
		for _, c := range w.clients {
			inFlight[c.listener] += len(c.held)
			clients[c.listener]++
		}
		settled := true
		w.listeners.Each(func(r *listeners.Running) {
			t := r.HTTP.Tally(nil)
			settled = settled && t.Requests == inFlight[r.Name] && t.Closed+t.Drained == clients[r.Name]
		})
		for name, h := range w.servers {
			open, held, tracked := h.open(), 0, 0
			for _, n := range open {
				held += n
			}
			if u, ok := w.live.Load().Upstream(name); ok {
				settled = settled && u.Tracker.Tally(u.Live, nil).Requests == held
				for _, n := range u.Tracker.Counts() {
					tracked += n
				}
			}
			settled = settled && len(open) == tracked // no connection is failing its handshake
		}
		return settled
	})
}

// before returns the clients by listener, and the connections by upstream with the number
// of requests in progress.
func (w *impactTestbed) before() (clients map[*holdClient]int, upstreams map[string]map[net.Conn]int) {
	clients, upstreams = map[*holdClient]int{}, map[string]map[net.Conn]int{}
	for _, c := range w.clients {
		clients[c] = len(c.held)
	}
	for name, h := range w.servers {
		upstreams[name] = h.open()
	}
	return clients, upstreams
}

func (w *impactTestbed) releaseAll() {
	for _, h := range w.servers {
		for _, c := range w.clients {
			for _, r := range c.held {
				h.release(r.id)
			}
		}
	}
	for _, c := range w.clients {
		for _, r := range c.held {
			<-r.done
		}
		c.held = nil
	}
}

// since returns the losses among the given connections: the ended connections,
// and their requests.
func (w *impactTestbed) since(clients map[*holdClient]int, upstreams map[string]map[net.Conn]int) map[string]losses {
	out := map[string]losses{}
	add := func(what string, requests int, atOnce bool) {
		l := out[what]
		if requests == 0 || atOnce {
			l.closed++
		} else {
			l.drained++
		}
		l.requests += int64(requests)
		out[what] = l
	}
	for c, requests := range clients {
		if c.ended.Load() {
			add("listener "+c.listener, requests, false)
		}
	}
	for name, conns := range upstreams {
		open := w.servers[name].open()
		for c, requests := range conns {
			if _, still := open[c]; !still {
				add("upstream "+name, requests, name == "one" && w.variant["one"] == 4 && w.variant["corp"] == 2)
			}
		}
	}
	return out
}

// Changes that affect no connection have no impact. A lost session or endpoint counts
// as impact even without connections.
func TestUnrelatedChangesEndNoConnection(t *testing.T) {
	w := newImpactTestbed(t, 2)
	w.connect()
	w.releaseAll()
	w.settle()
	try := func(name string, variant int) *adminv1.Impact {
		t.Helper()
		was := w.variant[name]
		w.variant[name] = variant
		defer func() { w.variant[name] = was }()
		e := w.edit()
		e.DryRun = true
		return w.apply(e).Impact
	}
	for name, variant := range map[string]int{"corp": 1, "one": 1, "two": 4, "to-one": 2, "to-two": 2} {
		if i := try(name, variant); !proto.Equal(i, new(adminv1.Impact)) {
			t.Errorf("%s: %v", name, i)
		}
	}
	// Each ticket key belongs to the TLS settings under which it was created.
	for name, variant := range map[string]int{"front": 1, "partners": 1, "to-two": 4} {
		if i := try(name, variant); !proto.Equal(i, &adminv1.Impact{Listeners: []*adminv1.ListenerImpact{{Name: "to-two", ResumptionLost: true}}}) {
			t.Errorf("%s: %v", name, i)
		}
	}
	u := w.upstream("one")
	u.Endpoints = []*adminv1.Endpoint{{Address: "127.0.0.1:1"}}
	gone := w.apply(store.Edit{Puts: puts(u), Impact: true, DryRun: true}).Impact.GetUpstreams()
	if len(gone) != 1 || gone[0].GetEndpointsGone() != 1 || gone[0].GetSessionsLost() == 0 || gone[0].GetConnectionsClosed() == 0 {
		t.Errorf("another endpoint: %v", gone)
	}
	r, err := w.Apply(context.Background(), store.Edit{Puts: puts(u)})
	if err != nil || r.Impact != nil {
		t.Errorf("the impact of an edit that does not request it: %v, %v", r, err)
	}
}
