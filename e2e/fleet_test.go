package e2e

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/proto"

	"github.com/drawbridge-gateway/drawbridge/gateway/store/etcd"
	"github.com/drawbridge-gateway/drawbridge/gateway/store/seal"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

const (
	// recordEvery is how often a recorder asks its gateway.
	recordEvery = 10 * time.Millisecond

	// holdEvery is how often a held connection carries a message.
	holdEvery = 50 * time.Millisecond

	fleetPrefix = "/drawbridge"
)

// A testFleet is gateways on real members of etcd, under traffic: a recorder asks each gateway
// all the time which revision it serves, and connections through each gateway stay open as
// long as its process lives.
type testFleet struct {
	t      testing.TB
	etcd   *etcdCluster
	client *clientv3.Client
	key    *seal.Key
	store  *etcd.Store // reads what the gateways wrote
	nodes  []*fleetNode

	ctx     context.Context // ends with the traffic
	end     context.CancelFunc
	traffic sync.WaitGroup
	next    atomic.Int64 // the number of the last answer that a test wrote

	read, answered map[int64]string // the IDs of the commits that were read, and their answers, by revision
}

// A fleetNode is one gateway of a testFleet, with all its processes.
type fleetNode struct {
	f  *testFleet
	id string
	g  *gateway // the last process; only the test itself uses it

	mu       sync.Mutex
	life     int        // counts the processes; guarded by mu
	up       bool       // the process serves, and the test has not killed it; guarded by mu
	web, raw string     // the addresses of the listeners; guarded by mu
	seen     []sighting // guarded by mu
	held     []*heldConn
	requests int // answered requests of the recorder; guarded by mu
}

// A sighting is an answer that a process of a gateway gave from a time on.
type sighting struct {
	life  int
	body  string
	first time.Time
}

// A heldConn is a connection through a gateway that moves bytes all the time.
type heldConn struct {
	kind  string
	life  int
	moved atomic.Int64 // messages
}

// startFleet starts members of etcd and gateways with IDs. Each gateway has the label id. The
// gateways answer /r with "0". The caller stops the traffic.
func startFleet(t testing.TB, members int, ids ...string) *testFleet {
	t.Helper()
	a := newAuthority(t)
	f := &testFleet{t: t, read: map[int64]string{}, answered: map[int64]string{}, etcd: startEtcd(t, a, members, "--heartbeat-interval", "200", "--election-timeout", "2000")}
	config := &tls.Config{Certificates: []tls.Certificate{keyPair(t, a.client)}, RootCAs: pool(a.ca)}
	var err error
	if f.client, err = clientv3.New(clientv3.Config{Endpoints: f.etcd.clients, TLS: config, DialTimeout: 2 * time.Second, Logger: zap.NewNop()}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.client.Close() })
	text, err := os.ReadFile(filepath.Join(f.etcd.dir, "seal.key"))
	if err == nil {
		f.key, err = seal.ParseKey(text)
	}
	if err == nil {
		f.store, err = etcd.Open(etcd.Options{Endpoints: f.etcd.clients, TLS: config, Prefix: fleetPrefix, Key: f.key})
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.store.Close() })

	for _, id := range ids {
		n := &fleetNode{f: f, id: id}
		f.nodes = append(f.nodes, n)
		n.g = launch(t, filepath.Join(shortDir(t), "data"), append(f.etcd.flags(), "--etcd-prefix", fleetPrefix, "--gateway-id", id, "--gateway-labels", "id="+id,
			"--revision-history", "1000", "--log-level", "info")...)
	}
	for _, n := range f.nodes {
		n.g.awaitReady()
	}
	echoes := serveConns(t, nil, echo)
	streams := serveHTTPS(t, a.serverConfig(t), sendDots)
	f.nodes[0].g.eventuallyApplies(
		trustBundle("ca", a.ca), certificate("client", a.client), plainUpstream("echoes", echoes), upstream("streams", a.settings(), streams),
		listener("web", protocolHTTP, ""), listener("raw", protocolTCP, "echoes"), forward("streams", "web", "/stream", "streams"), answer("0", http.StatusOK),
	)
	f.ctx, f.end = context.WithCancel(context.Background())
	for _, n := range f.nodes {
		n.serves()
		f.traffic.Go(func() { n.record(f.ctx) })
	}
	return f
}

// answer returns the route by which a gateway names the revision that it serves.
func answer(body string, code int32) *adminv1.Route {
	r := forward("answer", "web", "/r", "")
	r.Action = &adminv1.Route_Respond{Respond: &adminv1.Respond{Body: body, Code: &code}}
	return r
}

// sendDots sends a byte all the time until the client leaves.
func sendDots(w http.ResponseWriter, r *http.Request) {
	tick := time.NewTicker(holdEvery)
	defer tick.Stop()
	for {
		if _, err := io.WriteString(w, "."); err != nil || http.NewResponseController(w).Flush() != nil {
			return
		}
		select {
		case <-r.Context().Done():
			return
		case <-tick.C:
		}
	}
}

// eventuallyApplies puts resources once the gateway reaches etcd. A gateway may be ready
// before, and a machine that stalls may cause a timeout.
func (g *gateway) eventuallyApplies(resources ...proto.Message) {
	g.t.Helper()
	var err error
	if !pollUntil(func() bool {
		_, err = g.admin.Apply(longContext(g.t), &adminv1.ApplyRequest{Resources: wrap(g.t, resources)})
		return err == nil
	}) {
		g.t.Fatalf("Apply: %v", err)
	}
}

// serves waits until the listeners are up, and then opens the connections to hold.
func (n *fleetNode) serves() {
	t, ctx := n.f.t, n.f.ctx
	t.Helper()
	addresses := map[string]string{}
	eventually(t, "the listeners of gateway "+n.id+" are up", func() bool {
		for _, l := range n.g.getStatus().GetListeners() {
			if l.GetState() == adminv1.ListenerState_LISTENER_STATE_UP {
				addresses[l.GetName()] = l.GetBoundAddress()
			}
		}
		return len(addresses) == 2
	})
	n.mu.Lock()
	defer n.mu.Unlock()
	n.up, n.web, n.raw = true, addresses["web"], addresses["raw"]
	for kind, follow := range map[string]func(context.Context, *heldConn, string) error{"TCP": holdTCP, "HTTP": holdHTTP} {
		h, address := &heldConn{kind: kind, life: n.life}, map[string]string{"TCP": n.raw, "HTTP": n.web}[kind]
		n.held = append(n.held, h)
		n.f.traffic.Go(func() {
			if err := follow(ctx, h, address); ctx.Err() == nil && n.lives(h.life) {
				n.f.t.Errorf("the %s connection through gateway %s broke after %d messages: %v", kind, n.id, h.moved.Load(), err)
			}
		})
	}
}

// lives reports whether a process of the gateway runs and was not killed.
func (n *fleetNode) lives(life int) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.up && n.life == life
}

// holdTCP sends messages over one connection until ctx ends.
func holdTCP(ctx context.Context, h *heldConn, address string) error {
	conn, err := net.DialTimeout("tcp", address, testTimeout)
	if err != nil {
		return err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	for tick := time.NewTicker(holdEvery); ; <-tick.C {
		if err := pingPong(conn, "ping"); err != nil {
			return err
		}
		h.moved.Add(1)
	}
}

// holdHTTP reads one response until ctx ends.
func holdHTTP(ctx context.Context, h *heldConn, address string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+"/stream", nil)
	if err != nil {
		return err
	}
	resp, err := oneRequestClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return errors.New(resp.Status)
	}
	for buf := make([]byte, 100); ; {
		if _, err := resp.Body.Read(buf); err != nil {
			return err
		}
		h.moved.Add(1)
	}
}

// record asks the gateway all the time which revision it serves, until ctx ends.
func (n *fleetNode) record(ctx context.Context) {
	client := &http.Client{Timeout: testTimeout, Transport: &http.Transport{}}
	defer client.CloseIdleConnections()
	for tick := time.NewTicker(recordEvery); ; {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		n.mu.Lock()
		life, web, up := n.life, n.web, n.up
		n.mu.Unlock()
		if !up {
			continue
		}
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+web+"/r", nil)
		var body string
		if err == nil {
			var resp *http.Response
			if resp, err = client.Do(req); err == nil {
				body, err = readBody(resp)
			}
		}
		if err != nil {
			if ctx.Err() == nil && n.lives(life) {
				n.f.t.Errorf("a request to gateway %s failed: %v", n.id, err)
			}
			continue
		}
		n.mu.Lock()
		n.requests++
		if len(n.seen) == 0 || n.seen[len(n.seen)-1].life != life || n.seen[len(n.seen)-1].body != body {
			n.seen = append(n.seen, sighting{life, body, time.Now()})
		}
		n.mu.Unlock()
	}
}

// serving returns what the process of the gateway answered last; "": nothing yet.
func (n *fleetNode) serving() string {
	n.mu.Lock()
	defer n.mu.Unlock()
	if len(n.seen) == 0 || n.seen[len(n.seen)-1].life != n.life {
		return ""
	}
	return n.seen[len(n.seen)-1].body
}

// kill ends the process of the gateway with SIGKILL.
func (n *fleetNode) kill() {
	n.mu.Lock()
	n.up = false
	n.mu.Unlock()
	n.g.kill()
}

// restart starts the gateway again after a kill.
func (f *testFleet) restart(n *fleetNode) {
	f.t.Helper()
	n.g = n.g.restart()
	n.mu.Lock()
	n.life++
	n.mu.Unlock()
	n.serves()
}

// newAnswer returns an answer that no gateway gave before.
func (f *testFleet) newAnswer(about string) string { return fmt.Sprint(about, "-", f.next.Add(1)) }

// head reads the head from etcd.
func (f *testFleet) head() *etcd.Head {
	f.t.Helper()
	var head *etcd.Head
	eventually(f.t, "the head can be read", func() (ok bool) {
		var err error
		head, err = f.store.Head(f.t.Context())
		return err == nil
	})
	return head
}

// awaitHead waits until the head fulfills a condition, and returns it.
func (f *testFleet) awaitHead(condition string, ok func(*etcd.Head) bool) *etcd.Head {
	f.t.Helper()
	ctx, cancel := context.WithTimeout(f.t.Context(), testTimeout)
	defer cancel()
	for ctx.Err() == nil {
		head := f.head()
		if ok(head) {
			return head
		}
		_ = f.store.Wait(ctx, head) // after an error, the head is read again
	}
	f.t.Fatalf("not after %v: %s", testTimeout, condition)
	return nil
}

// list returns the gateways of the fleet as one of them knows them, and the head revision.
func (n *fleetNode) list() (all []*adminv1.Gateway, head int64, err error) {
	conn, err := grpc.NewClient("unix:"+n.g.socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return nil, 0, err
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(n.f.t.Context(), testTimeout)
	defer cancel()
	resp, err := adminv1.NewFleetServiceClient(conn).ListGateways(ctx, &adminv1.ListGatewaysRequest{})
	return resp.GetGateways(), resp.GetHeadRevision(), err
}

// converges waits until all gateways run the head, and serve its answer.
func (f *testFleet) converges() {
	f.t.Helper()
	for _, n := range f.nodes {
		last := ""
		if pollUntil(func() bool {
			head := f.head()
			all, revision, err := n.list()
			want := f.answers(head)[head.Revision()]
			last = fmt.Sprintf("gateways %v, head %d, error %v; it serves %q, and the answer of revision %d is %q", all, revision, err, n.serving(), head.Revision(), want)
			return err == nil && revision == head.Revision() && len(all) == len(f.nodes) && n.serving() == want &&
				!slices.ContainsFunc(all, func(g *adminv1.Gateway) bool {
					return !g.GetConnected() || g.GetRevision() != revision || g.GetError() != "" || g.GetRollout() != nil
				})
		}) {
			continue
		}
		f.t.Fatalf("gateway %s did not converge to the head: %s", n.id, last)
	}
}

// stop ends the traffic.
func (f *testFleet) stop() {
	f.end()
	f.traffic.Wait()
}

// movesOn waits until every connection that a living gateway holds moves bytes.
func (f *testFleet) movesOn() (held int) {
	f.t.Helper()
	for _, n := range f.nodes {
		n.mu.Lock()
		all := slices.DeleteFunc(slices.Clone(n.held), func(h *heldConn) bool { return !n.up || h.life != n.life })
		n.mu.Unlock()
		for _, h := range all {
			was := h.moved.Load()
			eventually(f.t, fmt.Sprintf("the %s connection through gateway %s moves bytes", h.kind, n.id), func() bool { return h.moved.Load() > was })
			held++
		}
	}
	return held
}

// summary describes the traffic.
func (f *testFleet) summary() string {
	requests, held, moved := 0, 0, int64(0)
	for _, n := range f.nodes {
		n.mu.Lock()
		requests += n.requests
		for _, h := range n.held {
			held, moved = held+1, moved+h.moved.Load()
		}
		n.mu.Unlock()
	}
	return fmt.Sprintf("%d answers recorded; %d held connections moved %d messages", requests, held, moved)
}
