// A probe makes a real handshake with exactly the given settings, stored or
// not, with each endpoint or one. It reports all facts about the handshake, and
// has no other effect.

package e2e

import (
	"crypto/tls"
	"encoding/json"
	"fmt"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

func TestAProbeReportsWhatItSaw(t *testing.T) {
	t.Parallel()
	a := newAuthority(t)
	between := intermediate(t, a.ca)
	server := serverCert(t, between, serverName)
	for _, v := range bothVersions {
		config := a.serverConfig(t)
		config.Certificates = []tls.Certificate{keyPair(t, server)}
		config.MinVersion, config.MaxVersion, config.NextProtos = v.wire, v.wire, []string{"h2"}
		config.CurvePreferences = []tls.CurveID{tls.CurveP256}
		address := serveConns(t, config, echo)
		g := startGateway(t)
		u := upstream("web", a.settings(), address)
		u.Http = &adminv1.UpstreamHttp{Protocol: adminv1.HttpProtocol_HTTP_PROTOCOL_2}
		g.apply(trustBundle("ca", a.ca), certificate("client", a.client), u)
		revision := g.getStatus().GetRevision()
		r := g.probe("web")
		if r.GetOutcome() != adminv1.ProbeOutcome_PROBE_OUTCOME_OK || r.GetReason() != 0 || r.GetSuggestion().GetText() != "" || r.GetExplanation() == "" {
			t.Errorf("TLS %s: %v", v.name, r)
		}
		if r.GetVersion() != v.ours || r.GetGroup() != "P-256" || !strings.HasPrefix(r.GetCipherSuite(), "TLS_") || r.GetAlpn() != "h2" {
			t.Errorf("TLS %s: negotiated %v %s %s %s", v.name, r.GetVersion(), r.GetGroup(), r.GetCipherSuite(), r.GetAlpn())
		}
		if !r.GetResumptionOffered() || !r.GetClientCertificateRequested() || !r.GetClientCertificateSent() || !slices.Equal(r.GetAcceptableCas(), []string{"CN=e2e root"}) {
			t.Errorf("TLS %s: %v", v.name, r)
		}
		if r.GetEndpoint() != address || r.GetRemoteAddress() != address || r.GetServerName() != serverName || r.GetVerifyName() != serverName {
			t.Errorf("TLS %s: %s %s, names %s %s", v.name, r.GetEndpoint(), r.GetRemoteAddress(), r.GetServerName(), r.GetVerifyName())
		}
		if c := r.GetChain(); len(c) != 2 || c[0].GetSha256Fingerprint() != fingerprint(server) || c[0].GetSubject() != "CN="+serverName ||
			c[1].GetIssuer() != "CN=e2e root" || !slices.Contains(c[0].GetSans(), "DNS:"+serverName) || !slices.Contains(c[0].GetKeyUsages(), "serverAuth") {
			t.Errorf("TLS %s: the chain is %v", v.name, c)
		}
		if timings := r.GetTimings(); timings.GetConnect().AsDuration() <= 0 || timings.GetHandshake().AsDuration() <= 0 {
			t.Errorf("TLS %s: timings %v", v.name, timings)
		}
		e := g.upstream("web").GetEndpoints()[0]
		if e.GetConnectionsMade() != 0 || e.GetHandshakesFull() != 0 || e.GetHealth() != adminv1.EndpointHealth_ENDPOINT_HEALTH_UNKNOWN || g.getStatus().GetRevision() != revision {
			t.Errorf("TLS %s: the probe changed the status: %v", v.name, e)
		}
	}
}

func TestAProbeOfSettingsThatAreNotStored(t *testing.T) {
	t.Parallel()
	a, other := newAuthority(t), newAuthority(t)
	good, bad := serveIdentity(t, a.serverConfig(t)), serveIdentity(t, other.serverConfig(t))
	socket := filepath.Join(shortDir(t), "app.sock")
	serveUnix(t, socket, echo)
	var connections atomic.Int64
	plain := serveConns(t, nil, func(conn net.Conn) { connections.Add(1); echo(conn) })
	g := startGateway(t)
	g.apply(trustBundle("ca", a.ca), certificate("client", a.client), upstream("two", a.settings(), good, bad))

	ask := func(req *adminv1.ProbeUpstreamRequest) []string {
		t.Helper()
		resp, err := g.diagnostics.ProbeUpstream(longContext(t), req)
		if err != nil {
			return []string{status.Code(err).String()}
		}
		var got []string
		for _, r := range resp.GetResults() {
			got = append(got, r.GetEndpoint()+" "+word(r.GetReason()))
		}
		return got
	}
	named := func(name string) *adminv1.ProbeUpstreamRequest {
		return &adminv1.ProbeUpstreamRequest{Target: &adminv1.ProbeUpstreamRequest_Name{Name: name}}
	}
	full := func(u *adminv1.Upstream) *adminv1.ProbeUpstreamRequest {
		return &adminv1.ProbeUpstreamRequest{Target: &adminv1.ProbeUpstreamRequest_Upstream{Upstream: u}}
	}
	only := func(req *adminv1.ProbeUpstreamRequest, endpoint string) *adminv1.ProbeUpstreamRequest {
		req.Endpoint = endpoint
		return req
	}
	fromHost := func(host string) *adminv1.ProbeUpstreamRequest {
		s := a.settings()
		s.ServerName, s.ServerNameSource = "", adminv1.ServerNameSource_SERVER_NAME_SOURCE_FROM_HOST
		req := full(upstream("new", s, good))
		req.Host = host
		return req
	}
	for what, c := range map[string]struct {
		req  *adminv1.ProbeUpstreamRequest
		want []string
	}{
		"both endpoints":      {named("two"), []string{good + " UNSPECIFIED", bad + " UNKNOWN_CA"}},
		"one endpoint":        {only(named("two"), bad), []string{bad + " UNKNOWN_CA"}},
		"an unknown endpoint": {only(named("two"), "127.0.0.1:1"), []string{codes.NotFound.String()}},
		"missing":             {named("missing"), []string{codes.NotFound.String()}},
		"no upstream":         {&adminv1.ProbeUpstreamRequest{}, []string{codes.InvalidArgument.String()}},
		"not stored":          {full(upstream("new", a.settings(), bad, good)), []string{bad + " UNKNOWN_CA", good + " UNSPECIFIED"}},
		"plaintext":           {full(plainUpstream("new", plain)), []string{plain + " UNSPECIFIED"}},
		"a socket":            {full(plainUpstream("new", "unix:"+socket)), []string{"unix:" + socket + " UNSPECIFIED"}},
		"TLS on plaintext":    {full(upstream("new", a.settings(), "unix:"+socket+"x")), []string{"unix:" + socket + "x CONNECT_REFUSED"}},
		"a host":              {fromHost(serverName), []string{good + " UNSPECIFIED"}},
		"another host":        {fromHost("other.example.com"), []string{good + " NAME_MISMATCH"}},
		"no certificate":      {full(upstream("new", &adminv1.UpstreamTls{Certificate: "missing"}, good)), []string{codes.InvalidArgument.String()}},
		"nonsense":            {full(upstream("new", &adminv1.UpstreamTls{Groups: []string{"P-1"}}, good)), []string{codes.InvalidArgument.String()}},
	} {
		if got := ask(c.req); !slices.Equal(got, c.want) {
			t.Errorf("%s: %q, want %q", what, got, c.want)
		}
	}
	if connections.Load() == 0 {
		t.Error("the plaintext upstream was not connected to")
	}
	if counts := g.getStatus().GetCounts(); counts.GetUpstreams() != 1 {
		t.Errorf("a probe stored something: %v", counts)
	}

	file := writeFile(t, filepath.Join(t.TempDir(), "up.yaml"), fmt.Appendf(nil,
		"kind: Upstream\nname: new\nendpoints: [{address: %q}, {address: %q}]\ntls: {certificate: client, trustBundles: [ca], serverName: %s}\n", good, bad, serverName))
	for _, c := range []struct {
		args    []string
		code    int
		reasons []string
	}{
		{[]string{"probe", "-f", file, "-o", "json"}, 1, []string{"", "UNKNOWN_CA"}},
		{[]string{"probe", "-f", file, "--endpoint", good, "-o", "json"}, 0, []string{""}},
		{[]string{"probe", "two", "--endpoint", bad, "-o", "json"}, 1, []string{"UNKNOWN_CA"}},
	} {
		r := g.cli(c.args...)
		var answer struct{ Results []struct{ Reason string } }
		if err := json.Unmarshal([]byte(r.stdout), &answer); err != nil {
			t.Errorf("%v: %v: %s", c.args, err, r)
		}
		var reasons []string
		for _, result := range answer.Results {
			reasons = append(reasons, result.Reason)
		}
		if r.code != c.code || !slices.Equal(reasons, c.reasons) {
			t.Errorf("%v: %q: %s", c.args, reasons, r)
		}
	}
	// Text output is a tree. In a pipe it has no colors.
	if r := g.cli("probe", "two"); r.code != 1 || strings.Contains(r.stdout, "\x1b") || !strings.Contains(r.stdout, "UNKNOWN_CA") || !strings.Contains(r.stdout, "CN="+serverName) {
		t.Errorf("drawbridge probe: %s", r)
	}
	if r := g.cli("probe", "missing"); r.code == 0 || r.stdout != "" {
		t.Errorf("drawbridge probe of a missing upstream: %s", r)
	}
	for what, err := range map[string]error{
		"flush": second(g.diagnostics.FlushSessions(longContext(t), &adminv1.FlushSessionsRequest{Upstream: "missing"})),
		"drain": second(g.diagnostics.DrainConnections(longContext(t), &adminv1.DrainConnectionsRequest{Upstream: "missing"})),
	} {
		if status.Code(err) != codes.NotFound {
			t.Errorf("%s of a missing upstream: %v", what, err)
		}
	}
}

func second[T any](_ T, err error) error { return err }
