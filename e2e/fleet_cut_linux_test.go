// A gateway that is cut off from etcd serves what it has, says how old that is, and follows the
// fleet after the network has healed, without a restart: packets are lost silently, and etcd is
// compacted in the meantime. DRAWBRIDGE_CUT sets how long the gateway is cut off.

package e2e

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

func TestAGatewayThatIsCutOffServesAndFollowsAfterTheHeal(t *testing.T) {
	t.Parallel()
	var atLeast time.Duration // after the gateway has noticed
	if text := os.Getenv("DRAWBRIDGE_CUT"); text != "" {
		var err error
		if atLeast, err = time.ParseDuration(text); err != nil {
			t.Fatal(err)
		}
	}
	hub, branch := newNetwork(t), newNetwork(t)
	cut, heal := connect(hub, branch, 1)
	c := newEtcd(t, newAuthority(t), net.IPv4(10, 0, 1, 1))
	for i := range 3 {
		c.add(fmt.Sprint("10.0.1.1:", 2379+10*i), fmt.Sprint("10.0.1.1:", 2380+10*i))
		c.through[i] = hub.through()
		c.start(t, i)
	}
	near, far := startGatewayIn(t, hub, c, "near"), startGatewayIn(t, branch, c, "far")
	echoes := branch.listen()
	serveOn(t, echoes, nil, echo)
	near.eventuallyApplies(plainUpstream("echoes", echoes.Addr().String()), listener("raw", protocolTCP, "echoes"), listener("web", protocolHTTP, ""), respondWith("before"))
	eventually(t, "the gateway follows", func() bool { return far.getStatus().GetRevision() == 1 })
	traffic := startBranchTraffic(t, branch, far)
	traffic.await("before")

	cut()
	began := time.Now()
	const writes = 6 // more than the fleet stores
	for i := range writes {
		near.eventuallyApplies(respondWith(fmt.Sprint("meanwhile ", i)))
	}
	c.compact(t)
	near.eventuallyApplies(respondWith("after"))
	var st *adminv1.GetStatusResponse
	eventually(t, "the gateway says that etcd does not answer", func() bool {
		st = far.getStatus()
		return st.GetFleet().GetConnectionError() != ""
	})
	noticed := time.Since(began)
	contact := st.GetFleet().GetContactTime().AsTime()
	if contact.IsZero() || contact.After(began.Add(testTimeout)) || st.GetFleet().GetHeadRevision() != 1 || st.GetRevision() != 1 {
		t.Errorf("status: %v", st.GetFleet())
	}
	for _, said := range []string{"etcd has not answered since " + contact.Format("2006-01-02 15:04:05"), "revision 1 may be old"} {
		if out := far.cli("status"); !strings.Contains(out.stdout, said) {
			t.Errorf("the status lacks %q: %v", said, out)
		}
	}
	eventually(t, "the others list the gateway as not connected", func() bool {
		return strings.Contains(near.cli("gateways").stdout, "not connected, seen ")
	})
	_, err := far.admin.Apply(longContext(t), &adminv1.ApplyRequest{Resources: wrap(t, []proto.Message{respondWith("refused")})})
	if status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), "nothing was changed") {
		t.Errorf("a write at the gateway that is cut off: %v", err)
	}
	if left := atLeast - time.Since(began); left > 0 {
		select {
		case <-time.After(left):
		case <-far.exited:
		}
	}
	if body := traffic.last(); body != "before" {
		t.Errorf("the gateway that is cut off serves %q", body)
	}

	heal()
	healed := time.Now()
	traffic.await("after")
	followed := time.Since(healed)
	eventually(t, "the gateway is in the fleet again", func() bool {
		st := far.getStatus()
		return st.GetRevision() == writes+2 && st.GetFleet().GetConnectionError() == "" && strings.Count(near.cli("gateways").stdout, " connected") == 2
	})
	far.eventuallyApplies(respondWith("written at the gateway that was cut off"))
	traffic.await("written at the gateway that was cut off")
	traffic.stop()
	if atLeast > time.Minute && followed > time.Minute {
		t.Errorf("the gateway followed only %v after the heal", followed)
	}
	t.Logf("noticed after %v, cut off for %v, followed %v after the heal; %d requests, of which 0 failed; %d messages over one connection",
		noticed.Round(time.Millisecond), healed.Sub(began).Round(time.Millisecond), followed.Round(time.Millisecond), traffic.requests.Load(), traffic.messages.Load())
}

// startGatewayIn starts a gateway of a fleet in a network.
func startGatewayIn(t testing.TB, n *namespace, c *etcdCluster, id string) *gateway {
	t.Helper()
	g := newGateway(t, filepath.Join(shortDir(t), "data"), append(c.flags(), "--gateway-id", id, "--revision-history", "3")...)
	line := n.through(append([]string{program(t)}, g.serveArgs()...)...)
	g.run(line[0], line[1:]...)
	g.awaitReady()
	return g
}

// compact compacts the cluster to its current revision.
func (c *etcdCluster) compact(t testing.TB) {
	t.Helper()
	out, err := c.etcdctl(longContext(t), "get", "x", "-w", "fields").CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	_, after, _ := strings.Cut(string(out), `"Revision" : `)
	revision, _, _ := strings.Cut(after, "\n")
	if out, err := c.etcdctl(longContext(t), "compact", revision).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
}

// branchTraffic is clients of a gateway in its own network: each request is a new connection, and
// another connection carries messages all the time. Each failure fails the test.
type branchTraffic struct {
	t                  testing.TB
	stop               func()
	requests, messages atomic.Int64

	mu      sync.Mutex
	body    string        // guarded by mu
	changed chan struct{} // closed when body changes; guarded by mu
}

func startBranchTraffic(t testing.TB, n *namespace, g *gateway) *branchTraffic {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	b := &branchTraffic{t: t, changed: make(chan struct{})}
	var clients sync.WaitGroup
	b.stop = sync.OnceFunc(func() {
		cancel()
		clients.Wait()
	})
	t.Cleanup(b.stop)
	url, raw := "http://"+g.address("web")+"/", g.address("raw")
	client := &http.Client{Timeout: testTimeout, Transport: &http.Transport{DisableKeepAlives: true, DialContext: n.dial}}
	every := func(d time.Duration, f func() error) {
		clients.Go(func() {
			tick := time.NewTicker(d)
			defer tick.Stop()
			for ctx.Err() == nil {
				if err := f(); err != nil && ctx.Err() == nil {
					t.Errorf("the traffic through the gateway failed: %v", err)
					return
				}
				select {
				case <-ctx.Done():
				case <-tick.C:
				}
			}
		})
	}
	every(20*time.Millisecond, func() error {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if err != nil {
			return err
		}
		resp, err := client.Do(req)
		if err != nil {
			return err
		}
		body, err := readBody(resp)
		if err == nil && resp.StatusCode != http.StatusOK {
			err = errors.New(resp.Status)
		}
		if err == nil {
			b.requests.Add(1)
			b.saw(body)
		}
		return err
	})
	conn, err := n.dial(ctx, "tcp", raw)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	every(100*time.Millisecond, func() error {
		b.messages.Add(1)
		return pingPong(conn, "ping")
	})
	return b
}

func (b *branchTraffic) saw(body string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.body != body {
		b.body = body
		close(b.changed)
		b.changed = make(chan struct{})
	}
}

// last returns the body of the last response.
func (b *branchTraffic) last() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.body
}

// await waits until the gateway answers with a body.
func (b *branchTraffic) await(body string) {
	b.t.Helper()
	limit := time.After(5 * time.Minute)
	for {
		b.mu.Lock()
		last, changed := b.body, b.changed
		b.mu.Unlock()
		if last == body {
			return
		}
		select {
		case <-changed:
		case <-limit:
			b.t.Fatalf("the gateway serves %q, not %q", last, body)
		}
	}
}
