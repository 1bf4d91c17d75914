package gateway

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/drawbridge-gateway/drawbridge/bridge/socket/sockettest"
	"github.com/drawbridge-gateway/drawbridge/certs/certstest"
	"github.com/drawbridge-gateway/drawbridge/gateway/diagnose"
	"github.com/drawbridge-gateway/drawbridge/gateway/invalid"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

func byName(name string) *adminv1.ProbeUpstreamRequest {
	return &adminv1.ProbeUpstreamRequest{Target: &adminv1.ProbeUpstreamRequest_Name{Name: name}}
}

func inFull(u *adminv1.Upstream) *adminv1.ProbeUpstreamRequest {
	return &adminv1.ProbeUpstreamRequest{Target: &adminv1.ProbeUpstreamRequest_Upstream{Upstream: u}}
}

func (g *testGateway) probe(req *adminv1.ProbeUpstreamRequest) []*adminv1.ProbeResult {
	g.t.Helper()
	resp, err := g.Probe(context.Background(), req)
	if err != nil {
		g.t.Fatal(err)
	}
	return resp.GetResults()
}

// wantFaults checks the fields of an error's faults, and their class.
func wantFaults(t *testing.T, err error, class invalid.Class, fields ...string) {
	t.Helper()
	var faults *invalid.Error
	if !errors.As(err, &faults) {
		t.Fatalf("no faults: %v", err)
	}
	var got []string
	for _, f := range faults.Faults {
		got = append(got, string(f.Field))
	}
	if faults.Worst() != class || !slices.Equal(got, fields) {
		t.Errorf("class %v, faults\n%v\nwant class %v and %q", faults.Worst(), err, class, fields)
	}
}

func TestAStoredUpstreamIsProbed(t *testing.T) {
	ca := certstest.NewCA(t)
	issued := ca.Server(t, "up.example")
	a, b := echo(t, ca, issued), echo(t, ca, issued)
	g := start(t, "")
	resources := bridgeTo(t, ca, a)
	up := resources[2].(*adminv1.Upstream)
	up.Endpoints = append(up.Endpoints, &adminv1.Endpoint{Address: "127.0.0.1:1", Backup: true}, &adminv1.Endpoint{Address: b, Draining: true})
	g.put(resources...)

	var results []*adminv1.ProbeResult
	for range 5 { // a probe waits only a moment for a ticket, which may come later on a busy machine
		if results = g.probe(byName("up")); len(results) != 3 {
			t.Fatalf("%d results", len(results))
		}
		if results[0].GetResumptionOffered() {
			break
		}
	}
	for i, want := range []struct {
		endpoint string
		outcome  adminv1.ProbeOutcome
		reason   adminv1.Reason
	}{
		{a, adminv1.ProbeOutcome_PROBE_OUTCOME_OK, adminv1.Reason_REASON_UNSPECIFIED},
		{"127.0.0.1:1", adminv1.ProbeOutcome_PROBE_OUTCOME_FAILED, adminv1.Reason_REASON_CONNECT_REFUSED},
		{b, adminv1.ProbeOutcome_PROBE_OUTCOME_OK, adminv1.Reason_REASON_UNSPECIFIED},
	} {
		if r := results[i]; r.GetEndpoint() != want.endpoint || r.GetOutcome() != want.outcome || r.GetReason() != want.reason || r.GetExplanation() == "" {
			t.Errorf("result %d: %v", i, r)
		}
	}
	if s := results[1].GetSuggestion(); !strings.Contains(s.GetText(), "endpoints[1].address") {
		t.Errorf("suggestion %q", s)
	}
	r := results[0]
	if r.GetVersion() != adminv1.TlsVersion_TLS_VERSION_1_3 || r.GetCipherSuite() == "" || r.GetGroup() != "X25519MLKEM768" || r.GetAlpn() != "" ||
		!r.GetResumptionOffered() || !r.GetClientCertificateRequested() || !r.GetClientCertificateSent() || len(r.GetAcceptableCas()) != 1 ||
		r.GetServerName() != "" || r.GetVerifyName() != "up.example" || r.GetRemoteAddress() != a ||
		len(r.GetChain()) != 1 || r.GetChain()[0].GetSubject() != "CN=up.example" ||
		r.GetTimings().GetConnect() == nil || r.GetTimings().GetHandshake() == nil || r.GetTimings().GetDns() != nil {
		t.Errorf("result %v", r)
	}
	// A probe does not count as traffic.
	for _, e := range g.UpstreamStatuses()[0].GetEndpoints() {
		if e.GetConnectionsMade() != 0 || e.GetHandshakesFull() != 0 || len(e.GetFailures()) != 0 || e.GetHealth() != adminv1.EndpointHealth_ENDPOINT_HEALTH_UNKNOWN {
			t.Errorf("the probe was counted as traffic: %v", e)
		}
	}

	one := byName("up")
	one.Endpoint = b
	if results := g.probe(one); len(results) != 1 || results[0].GetEndpoint() != b {
		t.Errorf("one endpoint: %v", results)
	}
	one.Endpoint = "10.0.0.1:1"
	_, err := g.Probe(t.Context(), one)
	wantFaults(t, err, invalid.NotFound, "endpoint")
	_, err = g.Probe(t.Context(), byName("none"))
	wantFaults(t, err, invalid.NotFound, "name")
	_, err = g.Probe(t.Context(), &adminv1.ProbeUpstreamRequest{Host: "a b"})
	wantFaults(t, err, invalid.Argument, "name", "host")
}

func TestUnappliedUpstreamIsProbed(t *testing.T) {
	ca := certstest.NewCA(t)
	address := echo(t, ca, ca.Server(t, "up.example"))
	g := start(t, "")
	resources := bridgeTo(t, ca, address)
	g.put(resources[:2]...)
	revision := g.State().Revision()

	u := resources[2].(*adminv1.Upstream)
	u.Name, u.Etag = "", "whatever"
	if r := g.probe(inFull(u))[0]; r.GetOutcome() != adminv1.ProbeOutcome_PROBE_OUTCOME_OK {
		t.Errorf("%v", r)
	}
	u.GetTls().VerifyName = "pay.example"
	r := g.probe(inFull(u))[0]
	if r.GetReason() != adminv1.Reason_REASON_NAME_MISMATCH || !strings.Contains(r.GetExplanation(), "for up.example; we verify pay.example") ||
		!strings.Contains(r.GetSuggestion().GetText(), `tls.verify_name to "up.example"`) {
		t.Errorf("%v", r)
	}
	// The server's CA is not among the system's roots, but in a stored bundle.
	u.GetTls().TrustBundles, u.GetTls().VerifyName = nil, "up.example"
	if r := g.probe(inFull(u))[0]; r.GetReason() != adminv1.Reason_REASON_UNKNOWN_CA || !strings.Contains(r.GetSuggestion().GetText(), `tls.trust_bundles to ["corp"]`) {
		t.Errorf("%v", r)
	}
	if g.State().Revision() != revision || len(g.UpstreamStatuses()) != 0 {
		t.Error("the probe applied the upstream")
	}

	// The probe reports every fault of the upstream, like a put.
	_, err := g.Probe(t.Context(), inFull(&adminv1.Upstream{
		Name:      "Not A Name",
		Endpoints: []*adminv1.Endpoint{{Address: "nowhere"}},
		Transport: &adminv1.Upstream_Tls{Tls: &adminv1.UpstreamTls{Certificate: "none", MinVersion: 99, Groups: []string{"x"}}},
	}))
	wantFaults(t, err, invalid.Argument, "upstream.name", "upstream.tls.certificate", "upstream.tls.min_version", "upstream.tls.groups[0]", "upstream.endpoints[0].address")
	_, err = g.Probe(t.Context(), inFull(nil))
	wantFaults(t, err, invalid.Argument, "upstream")
}

// An upstream that cannot be made live is not dialed, and the probe says why.
func TestDownUpstreamIsNotDialed(t *testing.T) {
	ca := certstest.NewCA(t)
	dialed := make(chan struct{}, 1)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	serve(t, l, func(net.Conn) { dialed <- struct{}{} })
	g := start(t, "")
	file := writeFile(t, filepath.Join(g.dir, "ca.pem"), ca.TrustPEM())
	g.put(
		&adminv1.TrustBundle{Name: "corp", Source: &adminv1.TrustBundle_File{File: file}},
		&adminv1.Upstream{Name: "up", Endpoints: []*adminv1.Endpoint{{Address: l.Addr().String()}},
			Transport: &adminv1.Upstream_Tls{Tls: &adminv1.UpstreamTls{TrustBundles: []string{"corp"}}}},
	)
	if err := g.stop(); err != nil {
		t.Fatal(err)
	}
	writeFile(t, filepath.Join(g.dir, "ca.pem"), []byte("nothing"))
	g = start(t, g.dir)
	r := g.probe(byName("up"))[0]
	if r.GetReason() != adminv1.Reason_REASON_LOCAL_CONFIG || !strings.Contains(r.GetExplanation(), `trust bundle "corp" is down`) || r.GetSuggestion().GetText() == "" {
		t.Errorf("%v", r)
	}
	select {
	case <-dialed:
		t.Error("the down upstream was dialed")
	default:
	}
}

func TestAListenerThatCouldNotBeBoundIsExplainedAsDown(t *testing.T) {
	ca := certstest.NewCA(t)
	g := start(t, "")
	g.put(append(bridgeTo(t, ca, "127.0.0.1:1"), tcpListener("tcp", sockettest.Host()+":0"))...)
	ask := &adminv1.ExplainRouteRequest{Listener: "tcp"}
	if out, err := g.Explain(ask); err != nil || out.GetAction() != adminv1.ExplainedAction_EXPLAINED_ACTION_FORWARD || out.GetUpstreams()[0].GetName() != "up" {
		t.Errorf("%v, %v", out, err)
	}
	address := g.address("tcp")
	g.put(tcpListener("tcp", address))
	if err := g.stop(); err != nil {
		t.Fatal(err)
	}
	taken, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	g = start(t, g.dir)
	if out, err := g.Explain(ask); err != nil || out.GetAction() != adminv1.ExplainedAction_EXPLAINED_ACTION_REFUSE || !strings.Contains(out.GetWhy(), "the listener is down") || !strings.Contains(out.GetWhy(), address) {
		t.Errorf("%v, %v", out, err)
	}
	_, err = g.Explain(&adminv1.ExplainRouteRequest{Listener: "none"})
	wantFaults(t, err, invalid.NotFound, "listener")
}

// Endpoints are probed concurrently, but not too many at once. The status and the
// explanation of an upstream with very many endpoints stay within what gRPC clients
// accept, and say how many there are.
func TestManyEndpointsAreCounted(t *testing.T) {
	const n = 50_000
	g := start(t, "", func(o *Options) { o.Logger = nil })
	u := &adminv1.Upstream{Name: "up", Transport: &adminv1.Upstream_Plaintext{Plaintext: &adminv1.Plaintext{}}}
	for i := range n {
		u.Endpoints = append(u.Endpoints, &adminv1.Endpoint{Address: fmt.Sprintf("10.0.%d.%d:443", i>>8, i&255)})
	}
	g.put(u, httpListener("l", "127.0.0.1:0"))
	s := g.UpstreamStatus("up")
	if size := proto.Size(s); size > 2<<20 || s.GetEndpointCount() != n || len(s.GetEndpoints()) < 1000 || len(s.GetEndpoints()) == n {
		t.Errorf("the status has %d of %d endpoints in %d bytes", len(s.GetEndpoints()), s.GetEndpointCount(), size)
	}
	answer, err := g.Explain(&adminv1.ExplainRouteRequest{Listener: "l"})
	if err != nil {
		t.Fatal(err)
	}
	if u := answer.GetUpstreams()[0]; u.GetEndpointCount() != n || len(u.GetEndpoints()) != 1000 {
		t.Errorf("the explanation has %d of %d endpoints", len(u.GetEndpoints()), u.GetEndpointCount())
	}
}

func TestProbesRunSideBySideWithinBounds(t *testing.T) {
	ca := certstest.NewCA(t)
	var now, most atomic.Int32
	var mu sync.Mutex
	release := make(chan struct{})
	once := sync.OnceFunc(func() { close(release) })
	t.Cleanup(once)
	u := &adminv1.Upstream{Name: "up", Transport: &adminv1.Upstream_Tls{Tls: &adminv1.UpstreamTls{Groups: []string{"X25519"}, MaxVersion: adminv1.TlsVersion_TLS_VERSION_1_2}}}
	const endpoints = diagnose.MaxProbes + 8
	for range endpoints {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		var first atomic.Bool
		serve(t, l, func(c net.Conn) {
			if first.Swap(true) {
				return // an additional handshake
			}
			n := now.Add(1)
			mu.Lock()
			most.Store(max(most.Load(), n))
			mu.Unlock()
			if n == diagnose.MaxProbes {
				once() // the maximum number of concurrent probes has arrived
			}
			<-release
			now.Add(-1)
		})
		u.Endpoints = append(u.Endpoints, &adminv1.Endpoint{Address: l.Addr().String()})
	}
	g := start(t, "")
	g.put(&adminv1.TrustBundle{Name: "corp", Source: &adminv1.TrustBundle_Pem{Pem: string(ca.TrustPEM())}})
	u.GetTls().TrustBundles = []string{"corp"}
	results := g.probe(inFull(u))
	for i, r := range results {
		if r.GetEndpoint() != u.Endpoints[i].Address || r.GetReason() != adminv1.Reason_REASON_PEER_CLOSED {
			t.Errorf("result %d: %v", i, r)
		}
	}
	if len(results) != endpoints || most.Load() != diagnose.MaxProbes {
		t.Errorf("%d results, %d at once", len(results), most.Load())
	}
}

// An upstream that only TCP listeners use is probed without the ALPN protocols
// of HTTP.
func TestAProbeOffersTheProtocolsOfTraffic(t *testing.T) {
	ca := certstest.NewCA(t)
	offered := make(chan []string, 1)
	config := &tls.Config{Certificates: []tls.Certificate{certstest.TLS(t, ca.Server(t, "up.example"))}}
	config.GetConfigForClient = func(h *tls.ClientHelloInfo) (*tls.Config, error) {
		offered <- h.SupportedProtos
		return nil, nil
	}
	l, err := tls.Listen("tcp", "127.0.0.1:0", config)
	if err != nil {
		t.Fatal(err)
	}
	serve(t, l, func(c net.Conn) { io.Copy(io.Discard, c) })
	g := start(t, "")
	g.put(bridgeTo(t, ca, l.Addr().String())...)
	probe := func(want ...string) {
		t.Helper()
		if r := g.probe(byName("up"))[0]; r.GetOutcome() != adminv1.ProbeOutcome_PROBE_OUTCOME_OK {
			t.Errorf("%v", r)
		}
		if got := <-offered; !slices.Equal(got, want) {
			t.Errorf("the protocols %q were offered, want %q", got, want)
		}
	}
	probe("h2", "http/1.1")
	g.put(tcpListener("tcp", "127.0.0.1:0"))
	probe()
	g.put(httpListener("web", "127.0.0.1:0"))
	probe("h2", "http/1.1")
}

func TestSessionsAreFlushedAndConnectionsDrained(t *testing.T) {
	ca := certstest.NewCA(t)
	g := start(t, "")
	resources := bridgeTo(t, ca, echo(t, ca, ca.Server(t, "up.example")))
	g.put(append(resources, tcpListener("tcp", "127.0.0.1:0"))...)
	c := dial(t, g.address("tcp"))
	c.echo(t, "one")
	if n, err := g.FlushSessions("up"); n == 0 || err != nil {
		t.Errorf("flushed %d, %v", n, err)
	}
	if n, err := g.FlushSessions("up"); n != 0 || err != nil {
		t.Errorf("flushed %d again, %v", n, err)
	}
	own := g.UpstreamStatuses()[0].GetConnectionsByCertificate()
	if len(own) != 1 || own[0].GetConnections() != 1 || own[0].GetSha256Fingerprint() == "" {
		t.Fatalf("connections %v", own)
	}
	if n, err := g.DrainConnections("up", strings.Repeat("0", 64), 0); n != 0 || err != nil {
		t.Errorf("drained %d for a certificate that the gateway does not have, %v", n, err)
	}
	c.echo(t, "two")
	if n, err := g.DrainConnections("up", own[0].GetSha256Fingerprint(), 0); n != 1 || err != nil {
		t.Errorf("drained %d, %v", n, err)
	}
	if _, err := c.r.ReadByte(); err == nil {
		t.Error("the connection is still there")
	}
	_, err := g.FlushSessions("none")
	wantFaults(t, err, invalid.NotFound, "upstream")
	_, err = g.DrainConnections("none", "", 0)
	wantFaults(t, err, invalid.NotFound, "upstream")
}

// A probe's answer never contains any part of a key.
func TestNoKeyInAProbe(t *testing.T) {
	ca := certstest.NewCA(t)
	g := start(t, "")
	g.put(bridgeTo(t, ca, "127.0.0.1:1")...)
	key := g.State().Get(adminv1.Kind_KIND_CERTIFICATE, "client").(*adminv1.Certificate).GetPem().GetPrivateKey()
	resp, err := g.Probe(t.Context(), byName("up"))
	if err != nil {
		t.Fatal(err)
	}
	text := protojson.Format(resp) + fmt.Sprint(resp) + g.log.String()
	if strings.Contains(text, "PRIVATE KEY") || strings.Contains(text, strings.Split(key, "\n")[1]) {
		t.Error("the answer contains part of a key")
	}
}
