package gateway

import (
	"os"
	"strings"
	"testing"
	"time"

	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

// Each kind of connection can be closed by its ID. Every other connection continues,
// even of the same kind and listener.
func TestClosingOneConnectionClosesNoOther(t *testing.T) {
	w := newConnWorld(t)
	held := dial(t, w.address("plain"))
	answered := make(chan error, 1)
	go func() { answered <- exchange1(held, held.r, "/held") }()
	open := map[string][]*peer{}
	for _, kind := range peerKinds {
		open[kind] = []*peer{w.must(kind), w.must(kind), w.must(kind)}
	}
	for _, kind := range peerKinds {
		chosen := open[kind][1]
		n, err := w.CloseConnections(&adminv1.ConnectionFilter{Ids: []string{w.of(chosen).GetId()}}, 0)
		if n != 1 || err != nil {
			t.Fatalf("%s: closed %d, %v", kind, n, err)
		}
		if err := chosen.uses(); err == nil {
			t.Errorf("the %s connection still works", kind)
		}
		open[kind] = []*peer{open[kind][0], open[kind][2]}
		eventually(t, "the closed connection leaves the list", func() bool { return w.of(chosen) == nil })
		for _, others := range open {
			for _, p := range others {
				if err := p.uses(); err != nil {
					t.Errorf("after the end of a %s connection, a %s connection fails: %v", kind, p.kind, err)
				}
			}
		}
	}
	close(w.released)
	if err := <-answered; err != nil {
		t.Errorf("the request in progress: %v", err)
	}
	eventually(t, "the log says who closed the TCP connection", func() bool {
		return strings.Contains(w.log.String(), `"ended":"closed by operator"`)
	})
}

// Within the grace period an HTTP connection ends with its request, and a TCP connection
// continues.
func TestConnectionsAreClosedWithinTheirGrace(t *testing.T) {
	w := newConnWorld(t)
	stream, idle, held := w.must("tcp"), w.must("http/2"), dial(t, w.address("plain"))
	answered := make(chan error, 1)
	go func() { answered <- exchange1(held, held.r, "/held") }()
	eventually(t, "the request is in progress", func() bool {
		return w.of(&peer{local: held.LocalAddr().String()}).GetRequestsInFlight() == 1
	})
	n, err := w.CloseConnections(&adminv1.ConnectionFilter{Listeners: []string{"db", "web", "plain"}}, time.Hour)
	if n != 3 || err != nil {
		t.Fatalf("closes %d, %v", n, err)
	}
	eventually(t, "the idle connection ends", func() bool { return w.of(idle) == nil })
	if c := w.of(stream); !c.GetDraining() || stream.uses() != nil {
		t.Errorf("the TCP connection does not continue: %v", c)
	}
	close(w.released)
	if err := <-answered; err != nil {
		t.Errorf("the request in progress: %v", err)
	}
	if _, err := held.r.ReadByte(); err == nil {
		t.Error("the connection continues after its request")
	}
	// A shorter period replaces the longer one.
	if n, err := w.CloseConnections(&adminv1.ConnectionFilter{Listeners: []string{"db"}}, time.Millisecond); n != 1 || err != nil {
		t.Fatalf("closes %d, %v", n, err)
	}
	eventually(t, "the TCP connection ends", func() bool { return w.of(stream) == nil })
}

// A pooled connection to an endpoint can be closed too. An idle one closes at
// once.
func TestPooledConnectionsAreClosed(t *testing.T) {
	w := newConnWorld(t)
	p := w.must("http/1.1")
	pooled := &adminv1.ConnectionFilter{Upstreams: []string{"site"}}
	var ids []string
	eventually(t, "a pooled connection is idle", func() bool {
		ids = nil
		for _, c := range w.list(pooled) {
			if c.GetClient() == nil && c.GetState() == adminv1.ConnectionPhase_CONNECTION_PHASE_IDLE {
				ids = append(ids, c.GetId())
			}
		}
		return len(ids) == 1
	})
	if n, err := w.CloseConnections(&adminv1.ConnectionFilter{Ids: ids}, time.Hour); n != 1 || err != nil {
		t.Fatalf("closed %d, %v", n, err)
	}
	eventually(t, "the closed connection leaves the list", func() bool { return len(w.list(&adminv1.ConnectionFilter{Ids: ids})) == 0 })
	if err := p.uses(); err != nil {
		t.Error("the client's connection: ", err)
	}
}

// The access log says that an operator ended a request in progress, and a tunnel.
func TestTheAccessLogNamesTheOperator(t *testing.T) {
	for _, kind := range []string{"http/1.1", "http/2", "tunnel"} {
		t.Run(kind, func(t *testing.T) {
			w := newConnWorld(t)
			defer close(w.released)
			p := w.must(kind)
			answered := make(chan error, 1)
			if p.waits != nil {
				go func() { answered <- p.waits() }()
				eventually(t, "the request is in progress", func() bool { return w.waiting.Load() == 1 })
			} else {
				answered <- p.uses()
			}
			if n, err := w.CloseConnections(&adminv1.ConnectionFilter{Ids: []string{w.of(p).GetId()}}, 0); n != 1 || err != nil {
				t.Fatalf("closed %d, %v", n, err)
			}
			if err := <-answered; (err != nil) != (p.waits != nil) {
				t.Errorf("the client sees %v", err)
			}
			eventually(t, "the access log names the operator", func() bool {
				log, err := os.ReadFile(w.requests)
				return err == nil && strings.Contains(string(log), `"ended":"closed by operator"`)
			})
		})
	}
}
