package gateway

import (
	"crypto/tls"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/drawbridge-gateway/drawbridge/certs/certstest"
	"github.com/drawbridge-gateway/drawbridge/gateway/store"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

// A checkedServer is an HTTPS server that answers with its name. It reports its health at
// /well.
type checkedServer struct {
	address   string
	unhealthy atomic.Bool
	asked     atomic.Int64
}

func newCheckedServer(t *testing.T, ca *certstest.CA, name string) *checkedServer {
	w := &checkedServer{}
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/well" {
			io.WriteString(rw, name)
			return
		}
		w.asked.Add(1)
		if w.unhealthy.Load() {
			rw.WriteHeader(503)
		}
	}))
	s.TLS = &tls.Config{
		Certificates: []tls.Certificate{certstest.TLS(t, ca.Server(t, "up.example"))}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: ca.Pool(),
	}
	s.EnableHTTP2 = true
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.StartTLS()
	t.Cleanup(s.Close)
	w.address = s.Listener.Addr().String()
	return w
}

// endpoint returns the status of one endpoint of an upstream.
func (g *testGateway) endpoint(name string, i int) *adminv1.EndpointStatus {
	g.t.Helper()
	for _, u := range g.UpstreamStatuses() {
		if u.GetName() == name {
			return u.GetEndpoints()[i]
		}
	}
	g.t.Fatalf("there is no upstream %q", name)
	return nil
}

func TestHealthChecksDecideWhereTrafficGoes(t *testing.T) {
	ca := certstest.NewCA(t)
	one, two := newCheckedServer(t, ca, "one"), newCheckedServer(t, ca, "two")
	g := start(t, "")
	events, stop := g.WatchEvents()
	defer stop()
	resources := append(bridgeTo(t, ca, one.address), httpListener("web", "127.0.0.1:0"))
	up := resources[2].(*adminv1.Upstream)
	up.Endpoints = append(up.Endpoints, &adminv1.Endpoint{Address: two.address})
	up.HealthCheck = &adminv1.HealthCheck{
		Kind:     &adminv1.HealthCheck_Http{Http: &adminv1.HttpCheck{Path: "/well"}},
		Interval: durationpb.New(100 * time.Millisecond), Timeout: durationpb.New(deadline), HealthyThreshold: new(int32(1)), UnhealthyThreshold: new(int32(1)),
	}

	// A dry run makes no health checks.
	g.apply(store.Edit{Puts: puts(resources...), DryRun: true})
	if n := one.asked.Load(); n != 0 {
		t.Errorf("a dry run made %d health checks", n)
	}

	g.put(resources...)
	url := "http://" + g.address("web") + "/"
	answers := func() (all map[string]int) {
		all = map[string]int{}
		for range 10 {
			code, body := get(t, url)
			if code != 200 {
				body = http.StatusText(code)
			}
			all[body]++
		}
		return all
	}
	if got := answers(); got["one"]+got["two"] != 10 { // the first request waited for a health check
		t.Errorf("before any failure: %v", got)
	}
	eventually(t, "both endpoints are healthy", func() bool { return g.endpoint("up", 0).GetAvailable() && g.endpoint("up", 1).GetAvailable() })

	one.unhealthy.Store(true)
	down := nextEvent(t, events, adminv1.EventType_EVENT_TYPE_ENDPOINT_HEALTH)
	for down.GetHealth() != adminv1.EndpointHealth_ENDPOINT_HEALTH_DOWN {
		down = nextEvent(t, events, adminv1.EventType_EVENT_TYPE_ENDPOINT_HEALTH)
	}
	if down.GetEndpoint() != one.address || down.GetReason() != adminv1.Reason_REASON_CHECK_FAILED || !strings.Contains(down.GetMessage(), "the endpoint answered 503") {
		t.Errorf("%v", down)
	}
	if got := answers(); got["two"] != 10 {
		t.Errorf("with one unhealthy endpoint: %v", got)
	}
	s := g.endpoint("up", 0)
	if s.GetAvailable() || s.GetHealth() != adminv1.EndpointHealth_ENDPOINT_HEALTH_DOWN || !strings.HasPrefix(s.GetUnavailableReason(), "fails its health check: CHECK_FAILED: the endpoint answered 503") {
		t.Errorf("%v", s)
	}
	if c := s.GetCheck(); c.GetHealthy() || !c.GetChecked() || c.GetReason() != adminv1.Reason_REASON_CHECK_FAILED || c.GetChecks() == 0 || c.GetFailures() == 0 || c.GetCheckTime() == nil || c.GetDuration().AsDuration() <= 0 {
		t.Errorf("%v", c)
	}
	// Failed health checks do not count as failures of traffic.
	if len(s.GetFailures()) != 0 || s.GetLastFailure() != nil {
		t.Errorf("%v", s)
	}

	// The health survives a change of another field, and a rotation.
	changed := proto.Clone(up).(*adminv1.Upstream)
	changed.Endpoints[1].Weight = new(int32(5))
	g.put(changed)
	renewed := ca.Client(t, "renewed")
	g.put(inlineCertificate("client", renewed))
	if a, b := g.endpoint("up", 0), g.endpoint("up", 1); a.GetAvailable() || !b.GetAvailable() {
		t.Errorf("after a change: %v, %v", a, b)
	}
	if got := answers(); got["two"] != 10 {
		t.Errorf("after a change: %v", got)
	}

	two.unhealthy.Store(true)
	eventually(t, "no endpoint is healthy", func() bool { return !g.endpoint("up", 1).GetAvailable() })
	if got := answers(); got["Service Unavailable"] != 10 {
		t.Errorf("with both endpoints unhealthy: %v", got)
	}
	if !strings.Contains(g.log.String(), `"reason":"NO_ENDPOINT"`) {
		t.Error("the log does not say why")
	}
	one.unhealthy.Store(false)
	eventually(t, "one endpoint is healthy again", func() bool { return g.endpoint("up", 0).GetAvailable() })
	if got := answers(); got["one"] != 10 {
		t.Errorf("with one endpoint healthy again: %v", got)
	}

	// The gateway no longer checks a deleted upstream.
	g.apply(store.Edit{Deletes: []store.Delete{{Kind: adminv1.Kind_KIND_LISTENER, Name: "web"}, {Kind: adminv1.Kind_KIND_UPSTREAM, Name: "up"}}})
	if err := g.stop(); err != nil {
		t.Fatal(err)
	}
}

// Failed handshakes of traffic eject an endpoint even if its health check
// passes. The endpoint returns when its ejection ends.
func TestFailedHandshakesEjectAHealthyEndpoint(t *testing.T) {
	for name, ejection := range map[string]time.Duration{"ejected": time.Hour, "returned": 100 * time.Millisecond} {
		t.Run(name, func(t *testing.T) {
			ca := certstest.NewCA(t)
			good := newCheckedServer(t, ca, "good")
			foreign := newCheckedServer(t, certstest.NewCA(t), "foreign")
			g := start(t, "")
			events, stop := g.WatchEvents()
			defer stop()
			resources := append(bridgeTo(t, ca, foreign.address), httpListener("web", "127.0.0.1:0"))
			up := resources[2].(*adminv1.Upstream)
			up.Endpoints = append(up.Endpoints, &adminv1.Endpoint{Address: good.address})
			up.HealthCheck = &adminv1.HealthCheck{Kind: &adminv1.HealthCheck_Tcp{Tcp: &adminv1.TcpCheck{}}, Interval: durationpb.New(100 * time.Millisecond), Timeout: durationpb.New(deadline)}
			up.OutlierDetection = &adminv1.OutlierDetection{ConsecutiveFailures: proto.Int32(3), BaseEjection: durationpb.New(ejection), MaxEjection: durationpb.New(time.Hour)}
			g.put(resources...)
			url := "http://" + g.address("web") + "/"
			eventually(t, "both pass their checks", func() bool { return g.endpoint("up", 0).GetAvailable() && g.endpoint("up", 1).GetAvailable() })
			for n := 0; g.endpoint("up", 0).GetEjections() == 0; n++ { // a request to the foreign endpoint is retried at the good one
				if code, body := get(t, url); code != 200 || body != "good" || n > 20 {
					t.Fatalf("request %d: %d %s", n, code, body)
				}
			}
			ejected := nextEvent(t, events, adminv1.EventType_EVENT_TYPE_ENDPOINT_EJECTED)
			if ejected.GetEndpoint() != foreign.address || ejected.GetKind() != adminv1.Kind_KIND_UPSTREAM || ejected.GetName() != "up" ||
				ejected.GetReason() != adminv1.Reason_REASON_UNKNOWN_CA || !strings.HasPrefix(ejected.GetMessage(), "3 failed handshakes in a row") {
				t.Errorf("%v", ejected)
			}
			if ejection == time.Hour {
				s := g.endpoint("up", 0)
				if s.GetAvailable() || s.GetEjectionEndTime() == nil || s.GetEjections() != 1 || s.GetHealth() != adminv1.EndpointHealth_ENDPOINT_HEALTH_UP || !s.GetCheck().GetHealthy() ||
					!strings.HasPrefix(s.GetUnavailableReason(), "ejected until ") {
					t.Errorf("%v", s)
				}
				return
			}
			returned := nextEvent(t, events, adminv1.EventType_EVENT_TYPE_ENDPOINT_RETURNED)
			if returned.GetEndpoint() != foreign.address || returned.GetReason() != adminv1.Reason_REASON_UNSPECIFIED || returned.GetMessage() == "" {
				t.Errorf("%v", returned)
			}
			if s := g.endpoint("up", 0); !s.GetAvailable() || s.GetEjectionEndTime() != nil || s.GetEjections() != 1 {
				t.Errorf("%v", s)
			}
		})
	}
}
