package snapshot

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/drawbridge-gateway/drawbridge/certs/certstest"
	"github.com/drawbridge-gateway/drawbridge/gateway/invalid"
	"github.com/drawbridge-gateway/drawbridge/gateway/store"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

func (w *testbed) explain(q *adminv1.ExplainRouteRequest) *adminv1.ExplainRouteResponse {
	w.t.Helper()
	var bad invalid.List
	out := w.snap.Explain(q, &bad)
	if err := bad.Err(); err != nil {
		w.t.Fatal(err)
	}
	return out
}

func redirectTo(name string, m *adminv1.RouteMatch, listener string) *adminv1.Route {
	return &adminv1.Route{Name: name, Listeners: []string{listener}, Match: m, Action: &adminv1.Route_Redirect{Redirect: &adminv1.Redirect{Scheme: "https"}}}
}

// actionOf formats the action of an answer, such as "redirect 302".
func actionOf(r *adminv1.ExplainRouteResponse) string {
	return fmt.Sprintf("%s %d", strings.ToLower(strings.TrimPrefix(r.GetAction().String(), "EXPLAINED_ACTION_")), r.GetCode())
}

func TestHTTPRouteIsExplained(t *testing.T) {
	w := newTestbed(t)
	canary := forward("canary", &adminv1.RouteMatch{Hosts: []string{"pay.example"}, Path: prefix("/v2/").Path,
		Methods: []string{"GET", "POST"}, Headers: []*adminv1.HeaderMatch{{Name: "x-tenant", Exact: proto.String("a")}}}, "web", "new", "old")
	canary.GetForward().Upstreams[0].Weight = new(int32(3))
	w.put(
		tlsUpstream("old", nil), tlsUpstream("new", nil), listener("web", "127.0.0.1:8080", httpP, "old"), listener("bare", "127.0.0.1:8081", httpP, ""),
		canary,
		forward("v2", &adminv1.RouteMatch{Path: prefix("/v2/").Path}, "web", "new"),
		redirectTo("secure", &adminv1.RouteMatch{Hosts: []string{"*.secure.example"}}, "web"),
		&adminv1.Route{Name: "hello", Listeners: []string{"web", "bare"}, Match: &adminv1.RouteMatch{Path: &adminv1.PathMatch{Kind: &adminv1.PathMatch_Exact{Exact: "/hello"}}},
			Action: &adminv1.Route_Respond{Respond: &adminv1.Respond{Body: "hello"}}},
	)
	for _, c := range []struct {
		name    string
		ask     *adminv1.ExplainRouteRequest
		route   string
		action  string // with its code
		targets string // upstreams and shares
		host    string
		path    string
		why     []string
	}{
		{"every condition holds", &adminv1.ExplainRouteRequest{Listener: "web", Host: "PAY.example.:8080", Path: "/a/..//v2/%78", Headers: map[string]string{"X-Tenant": "a"}},
			"canary", "forward 0", "new 75, old 25", "pay.example", "/v2/x",
			[]string{`route "canary" matches`, `the host "pay.example" matches pay.example`, `the path "/v2/x" begins with "/v2/"`, `the method "GET" is one of GET, POST`, `the header x-tenant: "a" matches`, `more specific than "v2"`}},
		{"a missing header", &adminv1.ExplainRouteRequest{Listener: "web", Host: "pay.example", Path: "/v2/x"},
			"v2", "forward 0", "new 100", "pay.example", "/v2/x", []string{`route "v2" matches`}},
		{"a header that is removed", &adminv1.ExplainRouteRequest{Listener: "web", Host: "pay.example", Path: "/v2/x", Headers: map[string]string{"X-Tenant": "a", "connection": "x-tenant"}},
			"v2", "forward 0", "new 100", "pay.example", "/v2/x", nil},
		{"a method that does not match", &adminv1.ExplainRouteRequest{Listener: "web", Host: "pay.example", Path: "/v2/x", Method: "PUT", Headers: map[string]string{"x-tenant": "a"}},
			"v2", "forward 0", "new 100", "pay.example", "/v2/x", nil},
		{"a wildcard", &adminv1.ExplainRouteRequest{Listener: "web", Host: "a.secure.example"},
			"secure", "redirect 302", "", "a.secure.example", "/", []string{"*.secure.example"}},
		{"a response", &adminv1.ExplainRouteRequest{Listener: "bare", Host: "x.example", Path: "/hello?q=1"},
			"hello", "respond 200", "", "x.example", "/hello", []string{`the path "/hello" is "/hello"`}},
		{"no route, but an upstream", &adminv1.ExplainRouteRequest{Listener: "web", Host: "x.example", Path: "/"},
			"", "forward 0", "old 100", "x.example", "/", []string{"no route matches", `not "canary": the host "x.example" does not match pay.example`, "the listener's own upstream"}},
		{"no route, and no upstream", &adminv1.ExplainRouteRequest{Listener: "bare", Host: "x.example"},
			"", "refuse 404", "", "x.example", "/", []string{`not "hello": the path "/" is not "/hello"`, "no upstream of its own"}},
		{"no host: the listener's own address", &adminv1.ExplainRouteRequest{Listener: "web"},
			"", "forward 0", "old 100", "127.0.0.1", "/", nil},
		{"a path that is not safe", &adminv1.ExplainRouteRequest{Listener: "web", Host: "x.example", Path: "/a/%2e%2e/%00"},
			"", "refuse 400", "", "", "", []string{"rejected before routes are matched"}},
		{"an invalid host", &adminv1.ExplainRouteRequest{Listener: "web", Host: "a b"}, "", "refuse 400", "", "", "", nil},
		{"CONNECT", &adminv1.ExplainRouteRequest{Listener: "web", Host: "x.example", Method: "CONNECT"}, "", "refuse 405", "", "", "", nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := w.explain(c.ask)
			var targets []string
			for _, u := range got.GetUpstreams() {
				targets = append(targets, fmt.Sprintf("%s %g", u.GetName(), u.GetPercent()))
			}
			if got.GetRoute() != c.route || actionOf(got) != c.action || strings.Join(targets, ", ") != c.targets ||
				got.GetHost() != c.host || got.GetPath() != c.path {
				t.Errorf("%v", got)
			}
			for _, part := range append(c.why, "") {
				if got.GetWhy() == "" || !strings.Contains(got.GetWhy(), part) {
					t.Errorf("the explanation lacks %q: %s", part, got.GetWhy())
				}
			}
		})
	}
}

func TestTCPRouteIsExplained(t *testing.T) {
	w := newTestbed(t)
	secure := listener("secure", ":9443", tcp, "")
	secure.Tls = &adminv1.ServerTls{Certificates: []string{"server"}, RejectUnknownSni: true}
	open := listener("open", ":9444", tcp, "old")
	open.Tls = &adminv1.ServerTls{Certificates: []string{"server"}}
	w.put(pemCertificate("server", w.ca.Server(t, "a.example", "b.example")), tlsUpstream("old", nil), tlsUpstream("new", nil),
		secure, open, listener("plain", ":9445", tcp, "old"),
		forward("a", &adminv1.RouteMatch{Hosts: []string{"a.example"}}, "secure", "new"), forward("a-too", &adminv1.RouteMatch{Hosts: []string{"a.example"}}, "open", "new"))
	for _, c := range []struct {
		listener, sni          string
		route, action, targets string
		why                    string
	}{
		{"secure", "A.example", "a", "forward 0", "new", `the host "a.example" matches a.example`},
		{"secure", "b.example", "", "refuse 0", "", "no upstream of its own"},
		{"secure", "c.example", "", "refuse 0", "", "fits no certificate"},
		{"secure", "", "", "refuse 0", "", "sends no SNI"},
		{"open", "a.example", "a-too", "forward 0", "new", ""},
		{"open", "c.example", "", "forward 0", "old", "the listener's own upstream"},
		{"open", "", "", "forward 0", "old", ""},
		{"plain", "", "", "forward 0", "old", "the listener has no routes"},
	} {
		got := w.explain(&adminv1.ExplainRouteRequest{Listener: c.listener, Sni: c.sni})
		targets := ""
		if len(got.GetUpstreams()) == 1 {
			targets = got.GetUpstreams()[0].GetName()
		}
		if got.GetRoute() != c.route || actionOf(got) != c.action || targets != c.targets || !strings.Contains(got.GetWhy(), c.why) {
			t.Errorf("%s, %q: %v", c.listener, c.sni, got)
		}
	}
}

// The SNI and the Host of one request may differ. The explanation checks each
// at the same point as the gateway.
func TestRejectUnknownSNIIsExplained(t *testing.T) {
	w := newTestbed(t)
	l := listener("web", ":9443", httpP, "up")
	l.Tls = &adminv1.ServerTls{Certificates: []string{"server"}, RejectUnknownSni: true}
	w.put(pemCertificate("server", w.ca.Server(t, "a.example")), tlsUpstream("up", nil), l)
	for _, c := range []struct {
		sni, host   string
		action, why string
	}{
		{"", "a.example", "forward 0", "own upstream"},
		{"a.example", "a.example:443", "forward 0", ""},
		{"a.example", "b.example", "refuse 421", "fits no certificate"},
		{"b.example", "a.example", "refuse 0", "unrecognized_name"},
		{"", "b.example", "refuse 0", "unrecognized_name"},
	} {
		got := w.explain(&adminv1.ExplainRouteRequest{Listener: "web", Sni: c.sni, Host: c.host})
		if actionOf(got) != c.action || !strings.Contains(got.GetWhy(), c.why) {
			t.Errorf("%q, %q: %v", c.sni, c.host, got)
		}
	}
}

func TestUpstreamSettingsAreExplained(t *testing.T) {
	w := newTestbed(t)
	const (
		fromHost = adminv1.ServerNameSource_SERVER_NAME_SOURCE_FROM_HOST
		noSNI    = adminv1.ServerNameSource_SERVER_NAME_SOURCE_NONE
	)
	w.put(w.bundle("corp"), w.client("client"))
	for _, c := range []struct {
		name     string
		tls      *adminv1.UpstreamTls
		endpoint string
		sni      string
		verify   []string
	}{
		{"defaults", &adminv1.UpstreamTls{}, "up.example:443", "up.example", []string{"up.example"}},
		{"an address", &adminv1.UpstreamTls{}, "10.0.0.1:443", "", []string{"10.0.0.1"}},
		{"a server name", &adminv1.UpstreamTls{ServerName: "sni.example"}, "10.0.0.1:443", "sni.example", []string{"sni.example"}},
		{"both names", &adminv1.UpstreamTls{ServerName: "sni.example", VerifyName: "verify.example"}, "10.0.0.1:443", "sni.example", []string{"verify.example"}},
		{"names by kind", &adminv1.UpstreamTls{SubjectAltNames: []string{"URI:spiffe://corp/pay", "DNS:a.example"}}, "up.example:443", "up.example", []string{"URI:spiffe://corp/pay", "DNS:a.example"}},
		{"from the host", &adminv1.UpstreamTls{ServerNameSource: fromHost}, "10.0.0.1:443", "asked.example", []string{"asked.example"}},
		{"SNI from the host, another name verified", &adminv1.UpstreamTls{ServerNameSource: fromHost, VerifyName: "verify.example"}, "10.0.0.1:443", "asked.example", []string{"verify.example"}},
		{"none sent", &adminv1.UpstreamTls{ServerNameSource: noSNI}, "up.example:443", "", []string{"up.example"}},
		{"nothing verified", &adminv1.UpstreamTls{Verification: adminv1.Verification_VERIFICATION_INSECURE_SKIP}, "up.example:443", "up.example", nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.tls.Certificate, c.tls.TrustBundles = "client", []string{"corp"}
			w.put(&adminv1.Upstream{Name: "up", Transport: &adminv1.Upstream_Tls{Tls: c.tls}, Endpoints: []*adminv1.Endpoint{
				{Address: c.endpoint}, {Address: "10.0.0.9:443", Backup: true, Draining: true}}}, listener("web", "127.0.0.1:8080", httpP, "up"))
			u := w.explain(&adminv1.ExplainRouteRequest{Listener: "web", Host: "asked.example:8080"}).GetUpstreams()[0]
			e := u.GetEndpoints()[0]
			if e.GetServerName() != c.sni || !slices.Equal(e.GetVerifyNames(), c.verify) || !e.GetTls() || e.GetBackup() || e.GetAddress() != c.endpoint {
				t.Errorf("endpoint %v", e)
			}
			if b := u.GetEndpoints()[1]; !b.GetBackup() || !b.GetDraining() {
				t.Errorf("endpoint %v", b)
			}
			want := c.tls.GetVerification()
			if want == 0 {
				want = adminv1.Verification_VERIFICATION_FULL
			}
			if u.GetCertificate() != "client" || len(u.GetSha256Fingerprint()) != 64 || !slices.Equal(u.GetTrustBundles(), []string{"corp"}) || u.GetVerification() != want || u.GetReason() != adminv1.Reason_REASON_UNSPECIFIED {
				t.Errorf("upstream %v", u)
			}
		})
	}
	w.put(&adminv1.Upstream{Name: "up", Transport: &adminv1.Upstream_Plaintext{Plaintext: &adminv1.Plaintext{}}, Endpoints: []*adminv1.Endpoint{{Address: "up.example:80"}}})
	u := w.explain(&adminv1.ExplainRouteRequest{Listener: "web", Host: "asked.example"}).GetUpstreams()[0]
	if e := u.GetEndpoints()[0]; e.GetTls() || e.GetServerName() != "" || len(e.GetVerifyNames()) != 0 || u.GetVerification() != 0 {
		t.Errorf("upstream %v", u)
	}
}

func TestInvalidExplainRequestsAreRefused(t *testing.T) {
	w := newTestbed(t)
	w.put(tlsUpstream("up", nil), listener("web", ":8080", httpP, "up"), listener("tcp", ":8081", tcp, "up"))
	for _, c := range []struct {
		ask    *adminv1.ExplainRouteRequest
		class  invalid.Class
		fields string
	}{
		{&adminv1.ExplainRouteRequest{}, invalid.Argument, "listener"},
		{&adminv1.ExplainRouteRequest{Listener: "none"}, invalid.NotFound, "listener"},
		{&adminv1.ExplainRouteRequest{Listener: "web", Sni: "a.example"}, invalid.Argument, "sni"},
		{&adminv1.ExplainRouteRequest{Listener: "web", Headers: map[string]string{"a b": ""}}, invalid.Argument, `headers["a b"]`},
		{&adminv1.ExplainRouteRequest{Listener: "tcp", Host: "a", Path: "/", Method: "GET", Headers: map[string]string{"A": ""}}, invalid.Argument, "host path method headers"},
	} {
		var bad invalid.List
		w.snap.Explain(c.ask, &bad)
		var fields []string
		for _, f := range bad.Faults() {
			fields = append(fields, string(f.Field))
		}
		if strings.Join(fields, " ") != c.fields || bad.Faults()[0].Class != c.class {
			t.Errorf("%v: %v", c.ask, bad.Faults())
		}
	}
}

func TestDownResourceIsExplained(t *testing.T) {
	w := newTestbed(t)
	file := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(file, w.ca.TrustPEM(), 0o600); err != nil {
		t.Fatal(err)
	}
	secure := listener("secure", ":8443", httpP, "up")
	secure.Tls = &adminv1.ServerTls{Certificates: []string{"server"}, ClientAuth: adminv1.ClientAuth_CLIENT_AUTH_REQUIRED, ClientTrustBundles: []string{"corp"}}
	w.put(&adminv1.TrustBundle{Name: "corp", Source: &adminv1.TrustBundle_File{File: file}}, w.server("server"),
		tlsUpstream("up", &adminv1.UpstreamTls{TrustBundles: []string{"corp"}}), listener("web", ":8080", httpP, "up"), secure)
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	w.snap = testCompiler().Restore(context.Background(), w.snap.State())
	got := w.explain(&adminv1.ExplainRouteRequest{Listener: "web", Host: "a.example"})
	if got.GetAction() != adminv1.ExplainedAction_EXPLAINED_ACTION_FORWARD || got.GetUpstreams()[0].GetReason() != adminv1.Reason_REASON_LOCAL_CONFIG || !strings.Contains(got.GetUpstreams()[0].GetMessage(), "corp") || got.GetUpstreams()[0].GetEndpoints()[0].GetServerName() != "" {
		t.Errorf("%v", got)
	}
	if got := w.explain(&adminv1.ExplainRouteRequest{Listener: "secure", Host: "a.example"}); got.GetAction() != adminv1.ExplainedAction_EXPLAINED_ACTION_REFUSE || !strings.Contains(got.GetWhy(), "the listener is down") {
		t.Errorf("%v", got)
	}
	if e := w.snap.Endpoints(t.Context(), "up", ""); len(e) != 1 || e[0].Down == "" {
		t.Errorf("endpoints %v", e)
	}
}

// Explaining an upstream without applying it does not change the live snapshot.
func TestWithUpstreamDoesNotChangeTheSnapshot(t *testing.T) {
	w := newTestbed(t)
	w.put(tlsUpstream("insecure", &adminv1.UpstreamTls{Verification: adminv1.Verification_VERIFICATION_INSECURE_SKIP}), w.bundle("corp"))
	before := w.snap
	known := len(before.SecurityWarnings())
	for _, name := range []string{"one", "two"} {
		var bad invalid.List
		u := tlsUpstream(name, &adminv1.UpstreamTls{Verification: adminv1.Verification_VERIFICATION_INSECURE_SKIP, TrustBundles: []string{"corp"}})
		next := testCompiler().WithUpstream(context.Background(), before, before.State().Edit(store.Edit{Puts: puts(u)}, &bad), name, &bad)
		if err := bad.Err(); err != nil {
			t.Fatal(err)
		}
		if e := next.Endpoints(t.Context(), name, ""); len(e) != 1 || e[0].Target.Client == nil || e[0].Target.Host != "up.example" || len(e[0].Target.Known) != 1 {
			t.Errorf("endpoints %v", e)
		}
		if len(next.SecurityWarnings()) != known+1 || !strings.Contains(string(next.SecurityWarnings()[known].Field), name) {
			t.Errorf("standing %v", next.SecurityWarnings())
		}
	}
	if len(before.SecurityWarnings()) != known || before.Endpoints(t.Context(), "one", "") != nil || len(before.Endpoints(t.Context(), "insecure", "")) != 1 {
		t.Error("the snapshot has changed")
	}
}

func TestChangedListsUpstreamsWhoseLiveObjectIsNew(t *testing.T) {
	w := newTestbed(t)
	w.put(w.bundle("corp"), w.bundle("other"), tlsUpstream("a", &adminv1.UpstreamTls{TrustBundles: []string{"corp"}}), tlsUpstream("b", nil), tlsUpstream("c", nil))
	labeled := tlsUpstream("b", nil)
	labeled.Labels = map[string]string{"a": "b"}
	next, _, bad := w.try(store.Edit{Puts: puts(labeled, &adminv1.TrustBundle{Name: "corp", Source: &adminv1.TrustBundle_Pem{Pem: string(certstest.NewCA(t).TrustPEM())}}, tlsUpstream("d", nil))})
	if err := bad.Err(); err != nil {
		t.Fatal(err)
	}
	if got := next.Changed(w.snap); !slices.Equal(got, []string{"a", "d"}) {
		t.Errorf("changed %v", got)
	}
}
