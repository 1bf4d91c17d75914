// A change does not affect unrelated traffic: streams, WebSockets and
// kept-alive requests through one upstream survive 200 changes to another
// upstream, its certificate, its routes and its listeners.

package e2e

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptrace"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/coder/websocket"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

func TestUnchangedMeansUntouched(t *testing.T) {
	t.Parallel()
	const streams, sockets, clients, changes = 50, 20, 4, 200
	a := newAuthority(t)
	web := serveHTTPS(t, a.serverConfig(t), func(w http.ResponseWriter, r *http.Request) {
		if strings.EqualFold(r.Header.Get("Upgrade"), "websocket") {
			echoWebSocket(w, r)
			return
		}
		respondsWith("b")(w, r)
	})
	raw := serveConns(t, a.serverConfig(t), echo)
	other := serveHTTPS(t, a.serverConfig(t), respondsWith("a"))

	g := startGateway(t)
	g.serveBoth(a, web, raw)
	g.apply(certificate("a", a.client), upstream("a", a.settings(), other), listener("a", protocolHTTP, "a"))
	before := g.getStatus()

	// Each of these clients sends continuously, from the first change to the last.
	stop := make(chan struct{})
	var wg sync.WaitGroup
	var rounds atomic.Int64
	keepBusy := func(what string, once func(i int) error) {
		if err := once(0); err != nil {
			t.Fatalf("%s, before any change: %v", what, err)
		}
		wg.Go(func() {
			for i := 1; ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				if err := once(i); err != nil {
					t.Errorf("%s, round %d: %v", what, i, err)
					return
				}
				rounds.Add(1)
			}
		})
	}
	for s := range streams {
		conn := dial(t, g.address("raw"))
		keepBusy(fmt.Sprint("stream ", s), func(i int) error { return pingPong(conn, fmt.Sprintf("stream %d round %d\n", s, i)) })
	}
	for s := range sockets {
		ws, _, err := websocket.Dial(longContext(t), "ws://"+g.address("web")+"/ws", nil)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = ws.CloseNow() })
		keepBusy(fmt.Sprint("socket ", s), func(i int) error { return webSocketPingPong(t, ws, fmt.Sprintf("socket %d round %d", s, i)) })
	}
	for s := range clients {
		transport := &http.Transport{MaxConnsPerHost: 1}
		t.Cleanup(transport.CloseIdleConnections)
		url := "http://" + g.address("web") + "/"
		keepBusy(fmt.Sprint("client ", s), func(i int) error {
			reused := true
			ctx, cancel := context.WithTimeout(t.Context(), testTimeout)
			defer cancel()
			ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{GotConn: func(c httptrace.GotConnInfo) { reused = c.Reused }})
			req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
			if err != nil {
				return err
			}
			body, err := roundTrip(transport, req)
			if err == nil && (body != "b" || reused != (i > 0)) {
				err = fmt.Errorf("got %q, on a connection kept %v", body, reused)
			}
			return err
		})
	}

	for i := range changes {
		switch i % 5 {
		case 0: // rotation
			g.apply(certificate("a", clientCert(t, a.ca, fmt.Sprint("a ", i))))
		case 1: // changed settings
			u := upstream("a", &adminv1.UpstreamTls{Certificate: "a", TrustBundles: []string{"ca"}, ServerName: serverName}, other)
			u.Endpoints[0].Weight = new(int32(1 + i))
			g.apply(u)
		case 2: // a listener that is added, changed or removed
			l := listener("a2", protocolHTTP, "a")
			l.Limits = &adminv1.ListenerLimits{Connections: int32(100 + i)}
			g.apply(l)
		case 3: // a route, even on the listener of b's traffic
			r := forward("a", "a", fmt.Sprintf("/%d/", i), "a")
			r.Listeners = []string{"a", "web"}
			g.apply(r)
		case 4:
			g.remove(ref(adminv1.Kind_KIND_ROUTE, "a"), ref(adminv1.Kind_KIND_LISTENER, "a2"))
		}
		if i%10 == 0 {
			if code, body := get(t, "http://"+g.address("a")+"/"); code != 200 || body != "a" {
				t.Errorf("change %d: the upstream that changes answers %d %q", i, code, body)
			}
		}
	}
	// Wait until every client has made a round after the last change.
	target := rounds.Load() + 2*(streams+sockets+clients)
	eventually(t, "traffic continues after the last change", func() bool { return t.Failed() || rounds.Load() >= target })
	close(stop)
	wg.Wait()

	after := g.getStatus()
	if after.GetRevision() < before.GetRevision()+changes {
		t.Errorf("the revision went from %d to %d", before.GetRevision(), after.GetRevision())
	}
	// The objects that serve b are the same as before: their counters have not restarted.
	if e := g.upstream("raw").GetEndpoints()[0]; e.GetConnections() != streams || e.GetConnectionsMade() != streams {
		t.Errorf("upstream of the streams: %v", e)
	}
	if e := g.upstream("web").GetEndpoints()[0]; e.GetConnections() < sockets || e.GetRequests() < sockets+clients {
		t.Errorf("upstream of the sockets and requests: %v", e)
	}
	for name, want := range map[string]int64{"raw": streams, "web": sockets + clients} {
		if l := g.listener(name); l.GetAccepted() != want || l.GetConnections() != want {
			t.Errorf("listener %s: %v, want the %d connections of the beginning", name, l, want)
		}
	}
}

func roundTrip(transport *http.Transport, req *http.Request) (string, error) {
	resp, err := transport.RoundTrip(req)
	if err != nil {
		return "", err
	}
	return readBody(resp)
}
