// The new process of an upgrade continues from what the old one knows: it sends no traffic
// to endpoints that are unhealthy or ejected, it needs no answer of DNS, it grants no client a
// second rate, and it resumes TLS sessions with upstreams.

package e2e

import (
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/drawbridge-gateway/drawbridge/bridge/resolve/dnstest"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

func TestAnUpgradeKeepsWhatIsKnownAboutEndpoints(t *testing.T) {
	t.Parallel()
	// The sick endpoint fails only its first health check. Then it needs four successes, of
	// which the first check of each new process is one.
	var checks, brokenRequests atomic.Int64
	sick := serveHTTP(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/well" && checks.Add(1) == 1 {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		respondsWith("sick")(w, r)
	})
	broken := serveHTTP(t, func(w http.ResponseWriter, _ *http.Request) {
		brokenRequests.Add(1)
		w.WriteHeader(http.StatusInternalServerError)
	})
	well := serveHTTP(t, respondsWith("well"))
	g := upgradable(t)
	checked := plainUpstream("checked", sick, well)
	checked.HealthCheck = &adminv1.HealthCheck{
		Kind: &adminv1.HealthCheck_Http{Http: &adminv1.HttpCheck{Path: "/well"}}, Interval: durationpb.New(24 * time.Hour), Timeout: durationpb.New(testTimeout), HealthyThreshold: proto.Int32(4),
	}
	watched := plainUpstream("watched", broken, well)
	watched.OutlierDetection = &adminv1.OutlierDetection{
		ConsecutiveFailures: proto.Int32(1), BaseEjection: durationpb.New(time.Hour), MaxEjection: durationpb.New(2 * time.Hour),
	}
	g.apply(checked, listener("checked", protocolHTTP, "checked"), watched, listener("watched", protocolHTTP, "watched"))
	eventually(t, "the endpoints are checked", func() bool {
		return g.endpoint("checked", sick).GetCheck().GetChecked() && g.endpoint("checked", well).GetCheck().GetHealthy()
	})
	for range 4 {
		_, _, _ = tryGet(t, oneRequestClient, "http://"+g.address("watched")) // a failed request ejects the endpoint
	}
	ejected := g.endpoint("watched", broken)
	if ejected.GetAvailable() || brokenRequests.Load() != 1 {
		t.Fatalf("after %d requests: %v", brokenRequests.Load(), ejected)
	}

	for range 2 { // the second upgrade passes on what the first one did
		g.upgrade()
		if e := g.endpoint("checked", sick); e.GetAvailable() || e.GetCheck().GetHealthy() || !e.GetCheck().GetChecked() {
			t.Errorf("%v", e)
		}
		if e := g.endpoint("checked", well); !e.GetAvailable() || !e.GetCheck().GetHealthy() {
			t.Errorf("%v", e)
		}
		e := g.endpoint("watched", broken)
		if e.GetAvailable() || e.GetUnavailableReason() != ejected.GetUnavailableReason() {
			t.Errorf("%v, want %q", e, ejected.GetUnavailableReason())
		}
		for _, name := range []string{"checked", "watched"} {
			for range 10 {
				if code, text, err := tryGet(t, oneRequestClient, "http://"+g.address(name)); err != nil || code != 200 || text != "well" {
					t.Errorf("%s: %d %q, %v", name, code, text, err)
				}
			}
		}
	}
	if n := brokenRequests.Load(); n != 1 {
		t.Errorf("the ejected endpoint got %d requests", n)
	}
}

// DNS has failed since the old process asked it.
func TestAnUpgradeKeepsEndpointsFromDNS(t *testing.T) {
	t.Parallel()
	server := serveHTTP(t, respondsWith("web"))
	names := dnstest.NewServer(t)
	names.Set(serverName, dnstest.A(1, "127.0.0.1"))
	port, err := strconv.ParseInt(server[strings.LastIndexByte(server, ':')+1:], 10, 32)
	if err != nil {
		t.Fatal(err)
	}
	web := byDNS("web", names, int32(port))
	web.Transport = &adminv1.Upstream_Plaintext{Plaintext: &adminv1.Plaintext{}}
	g := upgradable(t)
	g.apply(web, listener("web", protocolHTTP, "web"))
	for i := range 3 {
		if code, text, err := tryGet(t, oneRequestClient, "http://"+g.address("web")); err != nil || code != 200 || text != "web" {
			t.Errorf("after %d upgrades: %d %q, %v", i, code, text, err)
		}
		names.Ignore(serverName)
		g.upgrade()
	}
}

func TestAnUpgradeRefillsNoRate(t *testing.T) {
	t.Parallel()
	g := upgradable(t)
	hourly := func(n int32) *adminv1.Rate { return &adminv1.Rate{Count: n, Period: durationpb.New(time.Hour)} }
	web, raw := listener("web", protocolHTTP, "web"), listener("raw", protocolTCP, "raw")
	web.Limits = &adminv1.ListenerLimits{RatePerClient: hourly(3), Rate: hourly(4)}
	raw.Limits = &adminv1.ListenerLimits{RatePerClient: hourly(3)}
	g.apply(plainUpstream("web", serveHTTP(t, respondsWith("web"))), web, plainUpstream("raw", serveConns(t, nil, echo)), raw)
	request := func(ip string) int {
		t.Helper()
		client := from(t, ip)
		defer client.CloseIdleConnections()
		code, _, err := tryGet(t, client, "http://"+g.address("web"))
		if err != nil {
			t.Fatal(err)
		}
		return code
	}
	for i, want := range []int{200, 200, 200, 429, 429} { // one upgrade while the rate is spent, and one afterward
		if i == 2 || i == 4 {
			g.upgrade()
		}
		if code := request("127.0.0.1"); code != want {
			t.Errorf("request %d: %d, want %d", i, code, want)
		}
		text, err := exchange(t, g.address("raw"), "hello")
		if served := err == nil && text == "hello"; served != (want == 200) {
			t.Errorf("connection %d: %q, %v", i, text, err)
		}
	}
	for i, want := range []int{200, 503} { // the fourth and the fifth request of all clients
		if code := request("127.0.0.2"); code != want {
			t.Errorf("request %d of another client: %d, want %d", i, code, want)
		}
	}
}

func TestAnUpgradeKeepsSessionsWithUpstreams(t *testing.T) {
	t.Parallel()
	a := newAuthority(t)
	g := upgradable(t)
	g.apply(trustBundle("ca", a.ca), certificate("client", a.client))
	for _, v := range bothVersions {
		settings := a.settings()
		settings.MinVersion, settings.MaxVersion = v.ours, v.ours
		g.apply(
			upstream("tcp"+v.name, settings, serveIdentity(t, a.serverConfig(t))), listener("tcp"+v.name, protocolTCP, "tcp"+v.name),
			upstream("http"+v.name, settings, serveIdentityHTTP(t, a.serverConfig(t))), listener("http"+v.name, protocolHTTP, "http"+v.name),
		)
	}
	for i := range 3 {
		want := "e2e client " + serverName + " resumed"
		if i == 0 {
			want = "e2e client " + serverName + " full"
		}
		for _, v := range bothVersions {
			if got := seenTCP(t, g, "tcp"+v.name); got != want {
				t.Errorf("TLS %s after %d upgrades, TCP: %q, want %q", v.name, i, got, want)
			}
			if got := seenHTTP(t, g, "http"+v.name, ""); got != want {
				t.Errorf("TLS %s after %d upgrades, HTTP: %q, want %q", v.name, i, got, want)
			}
		}
		g.upgrade()
	}
}
