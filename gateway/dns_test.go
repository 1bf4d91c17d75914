package gateway

import (
	"context"
	"net"
	"strconv"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/drawbridge-gateway/drawbridge/bridge/resolve/dnstest"
	"github.com/drawbridge-gateway/drawbridge/certs/certstest"
	"github.com/drawbridge-gateway/drawbridge/gateway/store"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

// A service is a name whose SRV records lead to servers on loopback.
type service struct {
	*dnstest.Server
	t *testing.T
}

func newService(t *testing.T) service {
	s := service{dnstest.NewServer(t), t}
	s.Set("up.example", dnstest.A(1, "127.0.0.1"))
	return s
}

// at sets the addresses of the service.
func (s service) at(addresses ...string) {
	var records []dnstest.Record
	for _, a := range addresses {
		_, port, _ := net.SplitHostPort(a)
		n, _ := strconv.Atoi(port)
		records = append(records, dnstest.SRV(1, 10, 1, uint16(n), "up.example"))
	}
	s.Set("_up._tcp.example", records...)
}

// resources returns the resources that bridge to the service.
func (s service) resources(ca *certstest.CA) []store.Resource {
	out := bridgeTo(s.t, ca, "")
	u := out[2].(*adminv1.Upstream)
	u.Endpoints = nil
	u.Dns = &adminv1.Dns{Srv: "_up._tcp.example", Servers: []string{s.Addr().String()}}
	u.GetTls().VerifyName = "" // verify the name of the SRV target
	return out
}

// upstreamStatus returns the status of the upstream.
func (g *testGateway) upstreamStatus() *adminv1.UpstreamStatus {
	g.t.Helper()
	all := g.UpstreamStatuses()
	if len(all) != 1 {
		g.t.Fatalf("%d upstreams", len(all))
	}
	return all[0]
}

// endpoints formats an upstream's endpoints: "127.0.0.1:80, 127.0.0.1:81
// draining".
func endpoints(u *adminv1.UpstreamStatus) string {
	var out []string
	for _, e := range u.GetEndpoints() {
		text := e.GetAddress()
		if e.GetDraining() {
			text += " draining"
		}
		out = append(out, text)
	}
	return strings.Join(out, ", ")
}

func TestEndpointsFollowDNS(t *testing.T) {
	ca := certstest.NewCA(t)
	one, two := echo(t, ca, ca.Server(t, "up.example")), echo(t, ca, ca.Server(t, "up.example"))
	s := newService(t)
	s.at(one)
	g := start(t, "")
	events, stop := g.WatchEvents()
	defer stop()
	g.put(append(s.resources(ca), tcpListener("tcp", "127.0.0.1:0"))...)
	c := dial(t, g.address("tcp")) // the connection waits for the first DNS answer
	c.echo(t, "before")
	if got := endpoints(g.upstreamStatus()); got != one {
		t.Errorf("endpoints %s", got)
	}

	s.at(two)
	eventually(t, "the other endpoint has appeared", func() bool { return strings.HasPrefix(endpoints(g.upstreamStatus()), two) })
	u := g.upstreamStatus()
	if got := endpoints(u); got != two+", "+one+" draining" || u.GetEndpoints()[1].GetConnections() != 1 {
		t.Errorf("endpoints %s", got)
	}
	if d := u.GetDns(); d.GetResolveTime() == nil || !d.GetNextResolveTime().AsTime().After(d.GetResolveTime().AsTime()) || d.GetError() != "" {
		t.Errorf("DNS %v", d)
	}
	other := dial(t, g.address("tcp"))
	other.echo(t, "a connection to the other endpoint")
	c.echo(t, "after")
	ask := func(a *adminv1.ExplainRouteRequest) *adminv1.ExplainedUpstream {
		out, err := g.Explain(a)
		if err != nil || len(out.GetUpstreams()) != 1 {
			t.Fatalf("%v, %v", out, err)
		}
		return out.GetUpstreams()[0]
	}
	explained := ask(&adminv1.ExplainRouteRequest{Listener: "tcp"})
	if e := explained.GetEndpoints(); len(e) != 1 || e[0].GetAddress() != two || e[0].GetServerName() != "up.example" || !e[0].GetTls() {
		t.Errorf("explained %v", e)
	}
	_, metrics := get(t, "http://"+g.OpsAddress()+"/metrics")
	for _, want := range []string{
		`drawbridge_upstream_dns_endpoints{upstream="up"} 1`, `drawbridge_upstream_dns_lookups{result="ok",upstream="up"} `,
		`drawbridge_upstream_conn_open{endpoint="` + one + `",upstream="up"} 1`, `drawbridge_upstream_conn_open{endpoint="` + two + `",upstream="up"} 1`,
	} {
		if !strings.Contains(metrics, want) {
			t.Errorf("/metrics has no %s", want)
		}
	}
	c.Close()
	eventually(t, "the removed endpoint is no longer reported", func() bool { return endpoints(g.upstreamStatus()) == two })
	for _, want := range []string{one + " added", two + " added, " + one + " removed"} {
		for {
			e := <-events
			if e.GetType() != adminv1.EventType_EVENT_TYPE_ENDPOINTS_CHANGED {
				continue
			}
			if e.GetMessage() != want || e.GetKind() != adminv1.Kind_KIND_UPSTREAM || e.GetName() != "up" || e.GetEndpoint() != "" || e.GetHealth() != 0 {
				t.Errorf("event %v, want %q", e, want)
			}
			break
		}
	}

	// DNS stops answering: the last answer stays in use, even in a new revision.
	s.Ignore("_up._tcp.example")
	eventually(t, "DNS fails", func() bool { return g.upstreamStatus().GetDns().GetError() != "" })
	changed := proto.Clone(s.resources(ca)[2]).(*adminv1.Upstream)
	changed.Timeouts = &adminv1.UpstreamTimeouts{Connect: durationpb.New(time.Second)}
	g.put(changed)
	dial(t, g.address("tcp")).echo(t, "a connection in the new revision")
	other.echo(t, "a connection of the old revision")
	if n, err := g.FlushSessions("up"); err != nil || n == 0 {
		t.Errorf("%d sessions are flushed, %v", n, err)
	}
	if n, err := g.DrainConnections("up", "", 0); err != nil || n != 2 {
		t.Errorf("%d connections are drained, %v", n, err)
	}
}

func TestUnresolvedNameIsNotFatal(t *testing.T) {
	ca := certstest.NewCA(t)
	s := newService(t)
	g := start(t, "")
	g.put(append(s.resources(ca), tcpListener("tcp", "127.0.0.1:0"), httpListener("http", "127.0.0.1:0"))...)
	if code, body := get(t, "http://"+g.address("http")+"/"); code != 503 || body != "service unavailable\n" {
		t.Errorf("%d %q", code, body)
	}
	u := g.upstreamStatus()
	if want := "lookup _up._tcp.example on " + s.Addr().String() + ": no such host"; u.GetDns().GetError() != want || u.GetReason() != adminv1.Reason_REASON_DNS_FAILURE || u.GetMessage() != want {
		t.Errorf("%v", u)
	}
	eventually(t, "the log says why", func() bool {
		return strings.Contains(g.log.String(), `"code":503`) && strings.Contains(g.log.String(), `"reason":"DNS_FAILURE"`)
	})
	if p := g.Status().GetProblems(); len(p) != 0 {
		t.Errorf("problems %v", p)
	}
	s.at(echo(t, ca, ca.Server(t, "up.example")))
	eventually(t, "the name resolves", func() bool { return len(g.upstreamStatus().GetEndpoints()) == 1 })
	if u := g.upstreamStatus(); u.GetReason() != adminv1.Reason_REASON_UNSPECIFIED {
		t.Errorf("%v", u)
	}
	dial(t, g.address("tcp")).echo(t, "there")
}

func TestAProbeAsksDNSAndEachAddress(t *testing.T) {
	ca := certstest.NewCA(t)
	good, bad := echo(t, ca, ca.Server(t, "up.example")), echo(t, ca, ca.Server(t, "other.example"))
	s := newService(t)
	g := start(t, "")
	resources := s.resources(ca)
	edit := store.Edit{Puts: puts(resources...), RequireProbe: probeEvery}

	// The name does not resolve.
	_, err := g.Apply(t.Context(), edit)
	answers := wantRefusal(t, err, "resources[2].dns.srv")
	if len(answers) != 1 || len(answers[0].GetResults()) != 1 || answers[0].GetResults()[0].GetReason() != adminv1.Reason_REASON_DNS_FAILURE {
		t.Fatalf("answers %v", answers)
	}
	if r := answers[0].GetResults()[0]; r.GetEndpoint() != "_up._tcp.example" || !strings.Contains(r.GetExplanation(), "does not resolve: no such host (queried "+s.Addr().String()+")") ||
		!strings.Contains(r.GetSuggestion().GetText(), "dns.srv") {
		t.Errorf("%v", r)
	}

	// One of the two addresses completes the handshake.
	s.at(good, bad)
	_, err = g.Apply(t.Context(), edit)
	wantRefusal(t, err, "resources[2].dns")
	edit.RequireProbe = probeAny
	if _, err := g.Apply(t.Context(), edit); err != nil {
		t.Fatal(err)
	}

	out, err := g.Probe(context.Background(), &adminv1.ProbeUpstreamRequest{Target: &adminv1.ProbeUpstreamRequest_Name{Name: "up"}})
	if err != nil || len(out.GetResults()) != 2 {
		t.Fatalf("%v, %v", out, err)
	}
	for _, r := range out.GetResults() {
		want := adminv1.ProbeOutcome_PROBE_OUTCOME_OK
		if r.GetEndpoint() == bad {
			want = adminv1.ProbeOutcome_PROBE_OUTCOME_FAILED
		}
		if r.GetOutcome() != want || r.GetServerName() != "up.example" || r.GetVerifyName() != "up.example" {
			t.Errorf("%v", r)
		}
	}
	// If a name no longer resolves, the probe reports the failed lookup, and still
	// probes the last known endpoints.
	s.at()
	s.Set("_up._tcp.example")
	out, err = g.Probe(context.Background(), &adminv1.ProbeUpstreamRequest{Target: &adminv1.ProbeUpstreamRequest_Name{Name: "up"}})
	if err != nil || len(out.GetResults()) != 3 || out.GetResults()[0].GetReason() != adminv1.Reason_REASON_DNS_FAILURE {
		t.Errorf("%v, %v", out, err)
	}
	out, err = g.Probe(context.Background(), &adminv1.ProbeUpstreamRequest{Target: &adminv1.ProbeUpstreamRequest_Name{Name: "up"}, Endpoint: good})
	if err != nil || len(out.GetResults()) != 1 || out.GetResults()[0].GetOutcome() != adminv1.ProbeOutcome_PROBE_OUTCOME_OK {
		t.Errorf("%v, %v", out, err)
	}
}

// A DNS server that does not answer delays no write.
func TestAWriteDoesNotWaitForDNS(t *testing.T) {
	ca := certstest.NewCA(t)
	s := newService(t)
	s.Ignore("_up._tcp.example")
	var took time.Duration
	var u *adminv1.UpstreamStatus
	for range 5 { // a busy machine may delay a write too
		g := start(t, "")
		begun := time.Now()
		g.put(s.resources(ca)...)
		took, u = time.Since(begun), g.upstreamStatus()
		if took < time.Second && u.GetMessage() == "DNS has not answered yet" { // a DNS query takes longer
			break
		}
	}
	if took >= time.Second || u.GetReason() != adminv1.Reason_REASON_DNS_FAILURE || u.GetMessage() != "DNS has not answered yet" {
		t.Errorf("the write took %v: %v", took, u)
	}
}
