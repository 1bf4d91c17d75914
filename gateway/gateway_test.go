package gateway

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/drawbridge-gateway/drawbridge/bridge/socket/sockettest"
	"github.com/drawbridge-gateway/drawbridge/certs/certstest"
	"github.com/drawbridge-gateway/drawbridge/gateway/history"
	"github.com/drawbridge-gateway/drawbridge/gateway/invalid"
	"github.com/drawbridge-gateway/drawbridge/gateway/revisions"
	"github.com/drawbridge-gateway/drawbridge/gateway/store"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

func TestAppliedBridgeSurvivesARestart(t *testing.T) {
	ca := certstest.NewCA(t)
	g := start(t, "")
	g.put(append(bridgeTo(t, ca, echo(t, ca, ca.Server(t, "up.example"))), tcpListener("l", "127.0.0.1:0"))...)
	c := dial(t, g.address("l"))
	c.echo(t, "hello")
	c.Close()
	if err := g.stop(); err != nil {
		t.Fatal(err)
	}

	g = start(t, g.dir)
	if r := g.State().Revision(); r != 1 {
		t.Errorf("revision %d", r)
	}
	c = dial(t, g.address("l"))
	c.echo(t, "again")
	c.Close()
}

func TestARefusedEditLeavesNoTrace(t *testing.T) {
	ca := certstest.NewCA(t)
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	g := start(t, "")
	g.put(append(bridgeTo(t, ca, "127.0.0.1:1"), tcpListener("l", "127.0.0.1:0"))...)
	address, live := g.address("l"), g.live.Load()

	for name, e := range map[string]store.Edit{
		"an invalid resource":           {Puts: puts(tcpListener("new", "127.0.0.1:0"), &adminv1.Upstream{Name: "empty"})},
		"a taken address":               {Puts: puts(tcpListener("new", "127.0.0.1:0"), tcpListener("taken", taken.Addr().String()))},
		"a delete of a resource in use": {Deletes: []store.Delete{{Path: "name", Kind: adminv1.Kind_KIND_UPSTREAM, Name: "up"}}},
		"a stale revision":              {Puts: puts(tcpListener("new", "127.0.0.1:0")), ExpectedRevision: new(int64)},
	} {
		var bad *invalid.Error
		if _, err := g.Apply(context.Background(), e); !errors.As(err, &bad) {
			t.Errorf("%s: %v", name, err)
		} else if name == "a taken address" && (bad.Worst() != invalid.InUse || bad.Faults[0].Field != "resources[1].address" || !strings.Contains(bad.Error(), "address already in use")) {
			t.Errorf("%s: %v", name, bad)
		}
		if g.live.Load() != live || g.address("l") != address || len(g.Status().GetListeners()) != 1 {
			t.Errorf("%s: the refused edit changed something", name)
		}
	}
	g.stop()
	g = start(t, g.dir)
	if g.State().Revision() != 1 || len(g.State().All()) != 4 {
		t.Errorf("revision %d with %d resources on disk", g.State().Revision(), len(g.State().All()))
	}
}

func TestDryRunChangesNothingAndDescribesTheChange(t *testing.T) {
	g := start(t, "")
	r := g.apply(store.Edit{DryRun: true, Puts: puts(&adminv1.Listener{Name: "l", Address: "127.0.0.1:0", Protocol: adminv1.Protocol_PROTOCOL_TCP})})
	if len(r.Changes) != 1 || r.State.Revision() != 1 {
		t.Errorf("%+v", r)
	}
	if g.State().Revision() != 0 || len(g.Status().GetListeners()) != 0 {
		t.Error("something changed")
	}
}

// failing is a store whose writes fail.
type failing struct{ stateStore }

func (failing) Commit(*store.Draft, *revisions.Record) error {
	return errors.New("no space left on device")
}

func TestFailedCommitIsNotLive(t *testing.T) {
	g := start(t, "")
	g.writer.mu.Lock()
	g.store = failing{g.store}
	g.writer.mu.Unlock()
	_, err := g.Apply(context.Background(), store.Edit{Puts: puts(&adminv1.Listener{Name: "l", Address: "127.0.0.1:0", Protocol: adminv1.Protocol_PROTOCOL_TCP})})
	var bad *invalid.Error
	if !errors.As(err, &bad) || bad.Worst() != invalid.Unavailable || !strings.Contains(bad.Error(), "no space left") {
		t.Errorf("%v", err)
	}
	if g.State().Revision() != 0 || len(g.Status().GetListeners()) != 0 {
		t.Error("the edit is live although its commit failed")
	}
}

func TestAStoredListenerWhosePortIsTakenIsDownUntilItIsFree(t *testing.T) {
	ca := certstest.NewCA(t)
	g := start(t, "")
	g.put(append(bridgeTo(t, ca, echo(t, ca, ca.Server(t, "up.example"))), tcpListener("l", sockettest.Host()+":0"), tcpListener("m", "127.0.0.1:0"))...)
	// "l" gets a fixed port, which another socket takes while the gateway is
	// stopped.
	address := g.address("l")
	g.apply(store.Edit{Deletes: []store.Delete{{Kind: adminv1.Kind_KIND_LISTENER, Name: "l"}}})
	eventually(t, "the port is free", func() bool { return len(g.Status().GetListeners()) == 1 })
	g.put(tcpListener("l", address))
	g.stop()
	taken, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()

	g = start(t, g.dir)
	l := g.listener("l")
	if l.GetState() != adminv1.ListenerState_LISTENER_STATE_DOWN || !strings.Contains(l.GetReason(), "address already in use") {
		t.Errorf("%v", l)
	}
	if p := g.Status().GetProblems(); len(p) != 1 || p[0].GetName() != "l" {
		t.Errorf("problems: %v", p)
	}
	dial(t, g.address("m")).echo(t, "the other resources are up")

	g.put(&adminv1.Upstream{Name: "unrelated", Endpoints: []*adminv1.Endpoint{{Address: "127.0.0.1:1"}}})
	taken.Close()
	if _, err := g.Reload(context.Background()); err != nil {
		t.Fatal(err)
	}
	dial(t, g.address("l")).echo(t, "up again")
	if p := g.Status().GetProblems(); len(p) != 0 {
		t.Errorf("problems: %v", p)
	}
}

func TestSocketIsHandedOverWithoutRefusingClients(t *testing.T) {
	ca := certstest.NewCA(t)
	// On a busy machine the test takes longer than the harness's drain timeout, which
	// would end the long connection.
	g := start(t, "", func(o *Options) { o.DrainTimeout = 10 * time.Minute })
	for name, address := range map[string]string{"tcp": "127.0.0.1:0", "unix": "unix:" + filepath.Join(shortDir(t), "l.sock")} {
		t.Run(name, func(t *testing.T) {
			g.put(append(bridgeTo(t, ca, echo(t, ca, ca.Server(t, "up.example"))), tcpListener("first", address))...)
			address := g.address("first") // the port, now fixed
			g.put(tcpListener("first", address))
			long := dial(t, address)
			long.echo(t, "before")

			// A client that keeps connecting is never refused.
			stop := make(chan struct{})
			var wg sync.WaitGroup
			var served atomic.Int64
			wg.Go(func() {
				for {
					select {
					case <-stop:
						return
					default:
					}
					c := dial(t, address)
					c.echo(t, "x")
					c.Close()
					served.Add(1)
				}
			})
			for i := range 20 {
				from, to := "first", "second"
				if i%2 == 1 {
					from, to = to, from
				}
				served := func() int64 { return served.Load() }
				before := served()
				g.apply(store.Edit{
					Puts:    puts(tcpListener(to, address)),
					Deletes: []store.Delete{{Kind: adminv1.Kind_KIND_LISTENER, Name: from}},
				})
				eventually(t, "clients are served after the change", func() bool { return served() > before+2 })
			}
			close(stop)
			wg.Wait()
			long.echo(t, "the connection of the first owner still runs")
			g.apply(store.Edit{Deletes: []store.Delete{{Kind: adminv1.Kind_KIND_LISTENER, Name: "first"}}})
			long.Close()
			eventually(t, "drained", func() bool { return len(g.Status().GetListeners()) == 0 })
			if path, ok := strings.CutPrefix(address, "unix:"); ok {
				if _, err := os.Stat(path); !os.IsNotExist(err) {
					t.Errorf("the socket file is still there (%v)", err)
				}
			}
		})
	}
}

func TestADeletedListenerDrains(t *testing.T) {
	ca := certstest.NewCA(t)
	g := start(t, "")
	g.put(append(bridgeTo(t, ca, echo(t, ca, ca.Server(t, "up.example"))), tcpListener("l", "127.0.0.1:0"))...)
	address := g.address("l")
	c := dial(t, address)
	c.echo(t, "one")
	g.apply(store.Edit{Deletes: []store.Delete{{Kind: adminv1.Kind_KIND_LISTENER, Name: "l"}}})
	if s := g.listener("l"); s.GetState() != adminv1.ListenerState_LISTENER_STATE_DRAINING || s.GetConnections() != 1 {
		t.Errorf("%v", s)
	}
	eventually(t, "new connections are refused", func() bool {
		c, err := net.Dial("tcp", address)
		if err == nil {
			c.Close()
		}
		return err != nil
	})
	c.echo(t, "two")
	c.Close()
	eventually(t, "the listener is gone", func() bool { return len(g.Status().GetListeners()) == 0 })
}

func TestUnrelatedChangesTouchNoConnection(t *testing.T) {
	ca := certstest.NewCA(t)
	g := start(t, "")
	g.put(append(bridgeTo(t, ca, echo(t, ca, ca.Server(t, "up.example"))), tcpListener("l", "127.0.0.1:0"))...)
	var streams []*stream
	for range 20 {
		s := dial(t, g.address("l"))
		s.echo(t, "begin")
		streams = append(streams, s)
	}
	for i := range 50 {
		other := &adminv1.Upstream{Name: "other", Endpoints: []*adminv1.Endpoint{{Address: fmt.Sprintf("127.0.0.1:%d", i+1)}}}
		l := httpListener("other", "127.0.0.1:0")
		l.Upstream = "other"
		l.Labels = map[string]string{"i": fmt.Sprint(i)}
		g.put(other, l)
		streams[i%len(streams)].echo(t, "still there")
	}
	for _, s := range streams {
		s.echo(t, "end")
	}
	for _, u := range g.UpstreamStatuses() {
		if u.GetName() == "up" && (u.GetEndpoints()[0].GetConnections() != 20 || u.GetEndpoints()[0].GetConnectionsMade() != 20) {
			t.Errorf("%v", u.GetEndpoints()[0])
		}
	}
}

func TestReloadAppliesChangedFiles(t *testing.T) {
	ca, next := certstest.NewCA(t), certstest.NewCA(t)
	file := filepath.Join(t.TempDir(), "ca.pem")
	write := func(pem []byte) {
		if err := os.WriteFile(file, pem, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(ca.TrustPEM())
	g := start(t, "")
	g.put(&adminv1.TrustBundle{Name: "corp", Source: &adminv1.TrustBundle_File{File: file}})
	now, updates, stop := g.Watch()
	defer stop()

	if r, err := g.Reload(context.Background()); err != nil || r.State.Revision() != now.Revision() {
		t.Fatalf("a reload of the same files made revision %d (%v)", r.State.Revision(), err)
	}
	write(next.TrustPEM())
	r, err := g.Reload(context.Background())
	if err != nil || r.State.Revision() != 2 {
		t.Fatalf("%+v, %v", r, err)
	}
	if u := <-updates; len(u.Changes) != 1 || u.Changes[0].Action != adminv1.ChangeAction_CHANGE_ACTION_UPDATED {
		t.Errorf("%+v", u)
	}
	write([]byte("half a file"))
	if _, err := g.Reload(context.Background()); err == nil {
		t.Error("garbage was accepted")
	}
	shown := g.Present(g.State().Get(adminv1.Kind_KIND_TRUST_BUNDLE, "corp")).(*adminv1.TrustBundle)
	if shown.GetInfo().GetCount() != 1 || g.State().Revision() != 2 {
		t.Errorf("%v at revision %d", shown.GetInfo(), g.State().Revision())
	}
}

func TestASlowWatcherGetsAnErrorAndDelaysNoOther(t *testing.T) {
	g := start(t, "")
	for i := range keptUpdates + 2 {
		g.put(&adminv1.Upstream{Name: "u", Endpoints: []*adminv1.Endpoint{{Address: fmt.Sprintf("127.0.0.1:%d", i+1)}}})
	}
	for after, want := range map[int64]error{0: history.ErrBehind, 1: history.ErrBehind, 2: nil, keptUpdates + 2: nil} {
		if updates, _, err := g.Updates(after); !errors.Is(err, want) || err == nil && after == 2 && updates[0].Revision != 3 {
			t.Errorf("after %d: %v", after, err)
		}
	}
}

func TestConcurrentWritesAreSerialized(t *testing.T) {
	g := start(t, "")
	const writers, each = 8, 10
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			for i := range each {
				_, err := g.Apply(context.Background(), store.Edit{Puts: puts(&adminv1.Upstream{
					Name: fmt.Sprintf("u%d-%d", w, i), Endpoints: []*adminv1.Endpoint{{Address: "127.0.0.1:1"}}})})
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if s := g.State(); s.Revision() != writers*each || s.Len(adminv1.Kind_KIND_UPSTREAM) != writers*each {
		t.Errorf("revision %d with %d upstreams", s.Revision(), s.Len(adminv1.Kind_KIND_UPSTREAM))
	}
}

func TestAStopDrainsRefusesWritesAndIsNotReady(t *testing.T) {
	ca := certstest.NewCA(t)
	g := start(t, "")
	g.put(append(bridgeTo(t, ca, echo(t, ca, ca.Server(t, "up.example"))), tcpListener("l", "127.0.0.1:0"))...)
	ops := "http://" + g.OpsAddress()
	if code, _ := get(t, ops+"/readyz"); code != http.StatusOK {
		t.Errorf("readyz %d", code)
	}
	c := dial(t, g.address("l"))
	c.echo(t, "before")

	done := make(chan error, 1)
	go func() { done <- g.stop() }()
	eventually(t, "not ready", func() bool { return !g.Status().GetReady() })
	if code, body := get(t, ops+"/readyz"); code != http.StatusServiceUnavailable || body != "not ready\n" {
		t.Errorf("readyz %d %q", code, body)
	}
	if code, _ := get(t, ops+"/healthz"); code != http.StatusOK {
		t.Errorf("healthz %d", code)
	}
	eventually(t, "writes are refused", func() bool {
		_, err := g.Apply(context.Background(), store.Edit{Puts: puts(tcpListener("late", "127.0.0.1:0"))})
		var bad *invalid.Error
		return errors.As(err, &bad) && bad.Worst() == invalid.Unavailable
	})
	c.echo(t, "still served")
	c.Conn.(*net.TCPConn).CloseWrite()
	if rest, err := io.ReadAll(c.r); err != nil || len(rest) != 0 {
		t.Errorf("%q, %v", rest, err)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestMetricsCountTraffic(t *testing.T) {
	ca := certstest.NewCA(t)
	g := start(t, "")
	g.put(append(bridgeTo(t, ca, echo(t, ca, ca.Server(t, "up.example"))), tcpListener("l", "127.0.0.1:0"))...)
	for range 3 {
		c := dial(t, g.address("l"))
		c.echo(t, "hello")
		c.Close()
	}
	eventually(t, "closed", func() bool { return g.listener("l").GetConnections() == 0 })
	want := []string{
		`drawbridge_bridge_conn_accepted{listener="l"} 3`,
		`drawbridge_bridge_conn_open{listener="l"} 0`,
		`drawbridge_bridge_bytes{direction="to_upstream",listener="l"} 18`,
		`drawbridge_bridge_bytes{direction="to_client",listener="l"} 18`,
		`drawbridge_gateway_revision 1`,
		`drawbridge_gateway_applies{result="applied"} 1`,
		`drawbridge_gateway_resources{kind="trust_bundle"} 1`,
		`drawbridge_certs_expires_in_seconds{endpoint="",name="client",use="own"}`,
		`drawbridge_upstream_up{endpoint="127.0.0.1:`,
		`result="resumed",upstream="up"} 2`,
	}
	for range 2 { // a second scrape must not count anything twice
		_, body := get(t, "http://"+g.OpsAddress()+"/metrics")
		for _, w := range want {
			if !strings.Contains(body, w) {
				t.Errorf("no %s in\n%s", w, grep(body, "drawbridge_"))
			}
		}
	}
}

func grep(text, part string) string {
	var out []string
	for line := range strings.Lines(text) {
		if strings.Contains(line, part) && !strings.HasPrefix(line, "#") {
			out = append(out, line)
		}
	}
	return strings.Join(out, "")
}

func TestOpsOnLoopbackRejectsForeignHosts(t *testing.T) {
	g := start(t, "")
	for host, want := range map[string]int{"": 200, "localhost:1": 200, "127.0.0.1": 200, "evil.example": 403} {
		req, _ := http.NewRequest("GET", "http://"+g.OpsAddress()+"/debug/pprof/cmdline", nil)
		req.Host = host
		resp, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != want {
			t.Errorf("host %q: %d, want %d", host, resp.StatusCode, want)
		}
	}
}

func TestFailedOpenReleasesEverything(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	socket := filepath.Join(shortDir(t), "s")
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	if _, err := Open(t.Context(), Options{DataDir: dir, AdminSocket: socket, Ops: taken.Addr().String()}); err == nil || !strings.Contains(err.Error(), "address already in use") {
		t.Fatalf("%v", err)
	}
	if _, err := Open(t.Context(), Options{DataDir: dir, AdminSocket: socket, Statsd: "nonsense"}); err == nil {
		t.Fatal("an invalid statsd address was accepted")
	}
	ctx, cancel := context.WithCancel(t.Context())
	open := sockets(t)
	during := func(_ context.Context, f func()) error { cancel(); f(); return nil } // ends ctx at the first read of the restore
	if _, err := Open(ctx, Options{DataDir: dir, AdminSocket: socket, Ops: "127.0.0.1:0", blocking: during}); !errors.Is(err, context.Canceled) {
		t.Fatalf("a start that is canceled: %v", err)
	}
	if now := sockets(t); !slices.Equal(now, open) {
		t.Errorf("%d sockets were open, now %d", len(open), len(now))
	}
	g, err := Open(t.Context(), Options{DataDir: dir, AdminSocket: socket})
	if err != nil {
		t.Fatal(err)
	}
	if err := g.Close(); err != nil {
		t.Error(err)
	}
}
