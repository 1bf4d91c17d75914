// An upstream gets no more requests than its limits allow. Excess requests wait
// in a bounded queue. If the queue is full, further requests get 503 or a reset
// at once, with the reason in the status, the log and the metrics. A raised
// limit applies without an interruption.

package e2e

import (
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
	"google.golang.org/protobuf/types/known/durationpb"
)

func TestQueueThatIsFull(t *testing.T) {
	t.Parallel()
	a := newAuthority(t)
	release := make(chan struct{})
	var once sync.Once
	open := func() { once.Do(func() { close(release) }) }
	t.Cleanup(open)
	web := serveHTTPS(t, a.serverConfig(t), func(w http.ResponseWriter, r *http.Request) {
		<-release
		_, _ = w.Write([]byte("served"))
	})
	raw := serveConns(t, a.serverConfig(t), echo)
	limit := func(u *adminv1.Upstream, l *adminv1.UpstreamLimits) *adminv1.Upstream {
		u.Limits = l
		return u
	}
	g, ops := startGatewayWithOps(t)
	g.apply(trustBundle("ca", a.ca), certificate("client", a.client),
		limit(upstream("web", a.settings(), web), &adminv1.UpstreamLimits{RequestsPerEndpoint: 2, Pending: 3, PendingTimeout: durationpb.New(time.Hour)}),
		limit(upstream("raw", a.settings(), raw), &adminv1.UpstreamLimits{Connections: 1}),
		listener("web", protocolHTTP, "web"), listener("raw", protocolTCP, "raw"))

	var served sync.WaitGroup
	for range 5 {
		served.Go(func() {
			if code, body := get(t, "http://"+g.address("web")+"/"); code != 200 || body != "served" {
				t.Errorf("a queued request: %d %q", code, body)
			}
		})
	}
	eventually(t, "two requests are in flight and three wait", func() bool {
		u := g.upstream("web")
		return u.GetRequestsInFlight() == 2 && u.GetPending() == 3 && u.GetEndpoints()[0].GetRequestsInFlight() == 2
	})
	resp, err := http.Get("http://" + g.address("web") + "/")
	if err != nil {
		t.Fatal(err)
	}
	body, err := readBody(resp)
	if err != nil || resp.StatusCode != 503 || body != "service unavailable\n" || resp.Header.Get("Retry-After") != "1" {
		t.Errorf("a request over the limit: %d %q, Retry-After %q, %v", resp.StatusCode, body, resp.Header.Get("Retry-After"), err)
	}
	if u := g.upstream("web"); u.GetOverloaded() != 1 || u.GetPending() != 3 {
		t.Errorf("status: %v", u)
	}
	eventually(t, "the log says why", func() bool {
		for line := range strings.Lines(g.out.String()) {
			if strings.Contains(line, `"request failed"`) && strings.Contains(line, `"reason":"OVERLOADED"`) && strings.Contains(line, `"code":503`) {
				return true
			}
		}
		return false
	})
	_, metrics := get(t, "http://"+ops+"/metrics")
	for _, want := range []string{`drawbridge_upstream_overloaded{upstream="web"} 1`, `drawbridge_upstream_pending{upstream="web"} 3`} {
		if !strings.Contains(metrics, want+"\n") {
			t.Errorf("the metrics do not say %s", want)
		}
	}

	// With a higher limit a new request is sent at once, and waiting requests keep
	// their place.
	g.apply(limit(upstream("web", a.settings(), web), &adminv1.UpstreamLimits{RequestsPerEndpoint: 10}))
	served.Go(func() {
		if code, _ := get(t, "http://"+g.address("web")+"/"); code != 200 {
			t.Errorf("after the limit was raised: %d", code)
		}
	})
	eventually(t, "the request is in flight", func() bool { return g.upstream("web").GetRequestsInFlight() == 1 })
	open()
	served.Wait()

	// TCP: the second connection is reset. When the first has ended, another is
	// accepted.
	first := dial(t, g.address("raw"))
	if err := pingPong(first, "hello"); err != nil {
		t.Fatal(err)
	}
	if answer, err := exchange(t, g.address("raw"), "x"); answer != "" || err == nil {
		t.Errorf("a second connection got %q, %v", answer, err)
	}
	if u := g.upstream("raw"); u.GetOverloaded() != 1 || u.GetRequestsInFlight() != 1 {
		t.Errorf("status: %v", u)
	}
	_ = first.Close()
	eventually(t, "a connection is accepted again", func() bool {
		answer, _ := exchange(t, g.address("raw"), "x")
		return answer == "x"
	})
}
