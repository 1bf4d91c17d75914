// When an nginx of a group dies or reports that it is unhealthy, the gateway
// avoids it before clients notice. The status, events and metrics show the
// reason. When it is healthy again, it gets traffic again. All connections use
// mutual TLS.

package e2e

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
	"google.golang.org/protobuf/types/known/durationpb"
)

// startMarkedNginx runs an nginx that answers with its name. While it is marked "sick"
// it answers 503 at /well; while marked "broken", 500 to everything.
func startMarkedNginx(t *testing.T, a *authority, name string) *nginx {
	return startNginx(t, nginxConfig{
		ports: 1,
		files: nginxFiles(a.ca, a.server),
		http: func(n *nginx) string {
			return fmt.Sprintf(`server {
    listen %s ssl;
    %s
    if (-f %s) { return 500; }
    location = /well { if (-f %s) { return 503; } return 200 "%s is well"; }
    location / { return 200 "%s"; }
  }`, n.address(0), n.mutualTLS(), n.file("broken"), n.file("sick"), name, name)
		},
	})
}

// mark sets or removes a mark of an nginx.
func (n *nginx) mark(as string, marked bool) {
	if marked {
		_ = os.WriteFile(filepath.Join(n.dir, as), nil, 0o644) // if this fails, the test fails, too
	} else {
		_ = os.Remove(filepath.Join(n.dir, as))
	}
}

// startAgain restarts a killed nginx on the same ports.
func (n *nginx) startAgain(t *testing.T) {
	t.Helper()
	n.process = start(t, need(t, "nginx"), "-p", n.dir, "-c", n.file("nginx.conf"), "-e", "stderr")
	eventually(t, "nginx accepts connections again", func() bool { return n.up() || n.done() })
	if n.done() {
		t.Fatalf("nginx ended: %v\n%s", n.err, tail(n.out.String()))
	}
}

// A poller sends requests to a listener continuously.
type poller struct {
	stop, stopped chan struct{}

	mu      sync.Mutex
	answers map[string]int // counts by body, or by status code if it is not 200
}

func newPoller(t *testing.T, url string) *poller {
	c := &poller{stop: make(chan struct{}), stopped: make(chan struct{}), answers: map[string]int{}}
	client := &http.Client{Transport: &http.Transport{}}
	go func() {
		defer close(c.stopped)
		defer client.CloseIdleConnections()
		for {
			select {
			case <-c.stop:
				return
			default:
			}
			code, body, err := tryGet(t, client, url)
			switch {
			case err != nil:
				body = err.Error()
			case code != 200:
				body = fmt.Sprint(code)
			}
			c.mu.Lock()
			c.answers[body]++
			c.mu.Unlock()
		}
	}()
	t.Cleanup(func() { c.leave() })
	return c
}

// take returns the answers since the last call.
func (c *poller) take() map[string]int {
	c.mu.Lock()
	defer c.mu.Unlock()
	answers := c.answers
	c.answers = map[string]int{}
	return answers
}

func (c *poller) leave() {
	select {
	case <-c.stop:
	default:
		close(c.stop)
	}
	<-c.stopped
}

// awaitHealth returns the next event with a given health of an endpoint.
func (s *eventStream) awaitHealth(endpoint string, h adminv1.EndpointHealth) *adminv1.Event {
	s.t.Helper()
	for {
		e := s.await(adminv1.EventType_EVENT_TYPE_ENDPOINT_HEALTH)
		if e.GetEndpoint() == endpoint && e.GetHealth() == h {
			return e
		}
	}
}

func (g *gateway) endpoint(name, address string) *adminv1.EndpointStatus {
	g.t.Helper()
	for _, e := range g.upstream(name).GetEndpoints() {
		if e.GetAddress() == address {
			return e
		}
	}
	g.t.Fatalf("upstream %s has no endpoint %s", name, address)
	return nil
}

func TestHealthChecksOfNginx(t *testing.T) {
	t.Parallel()
	a := newAuthority(t)
	one, two := startMarkedNginx(t, a, "one"), startMarkedNginx(t, a, "two")
	g, ops := startGatewayWithOps(t)
	events := g.watchEvents()
	web := upstream("web", a.settings(), one.address(0), two.address(0))
	web.HealthCheck = &adminv1.HealthCheck{
		Kind:     &adminv1.HealthCheck_Http{Http: &adminv1.HttpCheck{Path: "/well", BodyContains: "is well"}},
		Interval: durationpb.New(100 * time.Millisecond), Timeout: durationpb.New(testTimeout), UnhealthyThreshold: new(int32(2)), HealthyThreshold: new(int32(2)),
	}
	g.apply(
		trustBundle("ca", a.ca), certificate("client", a.client), web, listener("web", protocolHTTP, ""),
		&adminv1.Route{Name: "web", Listeners: []string{"web"}, Action: &adminv1.Route_Forward{Forward: &adminv1.Forward{
			Upstreams: []*adminv1.WeightedUpstream{{Name: "web", Weight: new(int32(1))}},
			Retry:     &adminv1.Retry{On: []adminv1.RetryCondition{adminv1.RetryCondition_RETRY_CONDITION_RESET, adminv1.RetryCondition_RETRY_CONDITION_CONNECT_FAILURE}},
		}}},
	)
	url := "http://" + g.address("web") + "/"
	clients := newPoller(t, url) // the first request waits for a healthy endpoint
	for range 2 {
		if e := events.await(adminv1.EventType_EVENT_TYPE_ENDPOINT_HEALTH); e.GetHealth() != adminv1.EndpointHealth_ENDPOINT_HEALTH_UP {
			t.Errorf("at first: %v", e)
		}
	}
	both := func(when string) {
		t.Helper()
		clients.take()
		all := map[string]int{}
		eventually(t, when+" both answer", func() bool {
			for answer, n := range clients.take() {
				all[answer] += n
			}
			return all["one"] > 0 && all["two"] > 0
		})
		if all["one"]+all["two"] != sum(all) {
			t.Errorf("%s: %v", when, all)
		}
	}
	both("at first")

	for _, test := range []struct {
		what                  string
		falls, rises          func()
		reason                adminv1.Reason
		message, respondsWith string
	}{
		{"dead", one.kill, func() { one.startAgain(t) }, adminv1.Reason_REASON_CONNECT_REFUSED, "connection refused", "CONNECT_REFUSED"},
		{"sick", func() { one.mark("sick", true) }, func() { one.mark("sick", false) }, adminv1.Reason_REASON_CHECK_FAILED, "the endpoint answered 503", "CHECK_FAILED"},
	} {
		test.falls()
		down := events.awaitHealth(one.address(0), adminv1.EndpointHealth_ENDPOINT_HEALTH_DOWN)
		if down.GetReason() != test.reason || !strings.Contains(down.GetMessage(), test.message) || down.GetName() != "web" {
			t.Errorf("%s: reported as %v", test.what, down)
		}
		// Earlier requests may have failed at this server and been retried at the
		// other.
		if answers := clients.take(); answers["one"]+answers["two"] != sum(answers) {
			t.Errorf("when it failed: %v", answers)
		}
		e := g.endpoint("web", one.address(0))
		if e.GetAvailable() || e.GetHealth() != adminv1.EndpointHealth_ENDPOINT_HEALTH_DOWN || !strings.HasPrefix(e.GetUnavailableReason(), "fails its health check: "+test.respondsWith) ||
			e.GetCheck().GetHealthy() || e.GetCheck().GetReason() != test.reason {
			t.Errorf("%s: %v", test.what, e)
		}
		if other := g.endpoint("web", two.address(0)); !other.GetAvailable() || !other.GetCheck().GetHealthy() {
			t.Errorf("%s: of the other: %v", test.what, other)
		}
		if _, metrics := get(t, "http://"+ops+"/metrics"); !strings.Contains(metrics, fmt.Sprintf(`drawbridge_upstream_available{endpoint=%q,upstream="web"} 0`, one.address(0))) {
			t.Errorf("%s: the metrics do not show it", test.what)
		}
		if out := g.cli("status").String(); !strings.Contains(out, test.respondsWith) {
			t.Errorf("%s: status shows\n%s", test.what, out)
		}
		if out := g.cli("explain", "web").String(); !strings.Contains(out, "takes no traffic: fails its health check") {
			t.Errorf("%s: explain shows\n%s", test.what, out)
		}
		for range 10 { // these requests use only the healthy endpoint
			if code, body := get(t, url); code != 200 || body != "two" {
				t.Errorf("%s: %d %q", test.what, code, body)
			}
		}
		test.rises()
		if up := events.awaitHealth(one.address(0), adminv1.EndpointHealth_ENDPOINT_HEALTH_UP); up.GetReason() != adminv1.Reason_REASON_UNSPECIFIED {
			t.Errorf("%s: healthy again: %v", test.what, up)
		}
		both("after it was " + test.what)
	}
	clients.leave()

	// Without a healthy endpoint, the gateway itself answers at once.
	one.mark("sick", true)
	two.mark("sick", true)
	for _, n := range []*nginx{one, two} {
		eventually(t, "the endpoint is unavailable", func() bool { return !g.endpoint("web", n.address(0)).GetAvailable() })
	}
	if code, body := get(t, url); code != 503 || body != "service unavailable\n" {
		t.Errorf("no healthy endpoint: %d %q", code, body)
	}
	if r := g.cli("explain", "web"); r.code != 1 {
		t.Errorf("no healthy endpoint: %s", r)
	}
}

func sum(counts map[string]int) (n int) {
	for _, c := range counts {
		n += c
	}
	return n
}
