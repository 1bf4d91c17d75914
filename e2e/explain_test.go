// Traffic agrees with ExplainRoute: the route, the upstream, the sent and
// verified name, the presented identity, or the refusal.

package e2e

import (
	"crypto/tls"
	"fmt"
	"net/http"
	"strings"
	"testing"

	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

func TestExplanationsOfRequestsHold(t *testing.T) {
	t.Parallel()
	a := newAuthority(t)
	config := a.serverConfig(t)
	config.Certificates = append(config.Certificates, keyPair(t, serverCert(t, a.ca, "pay.example.com")))
	// Each upstream answers with its name, the path, the host and the facts about
	// its TLS connection.
	tells := func(name string) string {
		return serveHTTPS(t, config.Clone(), func(w http.ResponseWriter, r *http.Request) {
			_, _ = fmt.Fprint(w, name, " ", r.URL.Path, " ", r.TLS.ServerName, " ", r.TLS.PeerCertificates[0].Subject.CommonName)
		})
	}
	fromHost := &adminv1.UpstreamTls{Certificate: "bob", TrustBundles: []string{"ca"}, ServerNameSource: adminv1.ServerNameSource_SERVER_NAME_SOURCE_FROM_HOST}
	noSNI := a.settings()
	noSNI.ServerNameSource = adminv1.ServerNameSource_SERVER_NAME_SOURCE_NONE

	route := func(name, upstream string, match *adminv1.RouteMatch) *adminv1.Route {
		r := forward(name, "web", "", upstream)
		r.Match = match
		return r
	}
	prefix := func(p string) *adminv1.PathMatch {
		return &adminv1.PathMatch{Kind: &adminv1.PathMatch_Prefix{Prefix: p}}
	}
	exact := func(p string) *adminv1.PathMatch { return &adminv1.PathMatch{Kind: &adminv1.PathMatch_Exact{Exact: p}} }
	gone := &adminv1.Route{
		Name: "gone", Listeners: []string{"web"}, Match: &adminv1.RouteMatch{Path: prefix("/old/")},
		Action: &adminv1.Route_Respond{Respond: &adminv1.Respond{Code: new(int32(410)), Body: "gone"}},
	}
	moved := &adminv1.Route{
		Name: "moved", Listeners: []string{"web"}, Match: &adminv1.RouteMatch{Path: exact("/moved")},
		Action: &adminv1.Route_Redirect{Redirect: &adminv1.Redirect{Host: "elsewhere.example.com"}},
	}
	g := startGateway(t)
	g.apply(
		trustBundle("ca", a.ca), certificate("client", a.client), certificate("bob", clientCert(t, a.ca, "bob")),
		upstream("default", a.settings(), tells("default")), upstream("v2", noSNI, tells("v2")), upstream("pay", fromHost, tells("pay")),
		listener("web", protocolHTTP, "default"), gone, moved,
		route("v2", "v2", &adminv1.RouteMatch{Path: prefix("/v2/")}),
		route("v2-post", "default", &adminv1.RouteMatch{Path: prefix("/v2/"), Methods: []string{"POST"}}),
		route("wild", "pay", &adminv1.RouteMatch{Hosts: []string{"*.example.com"}}),
	)
	base := "http://" + g.address("web")
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	for _, c := range []struct{ method, host, path, route, action string }{
		{"GET", "a.test", "/", "", "forward"},
		{"GET", "a.test", "/v2/x", "v2", "forward"},
		{"POST", "a.test", "/v2/x", "v2-post", "forward"},
		{"GET", "a.test", "/v2/../v2//x/./y", "v2", "forward"},
		{"GET", "a.test", "/v2/%2e%2e/old/", "gone", "respond"},
		{"GET", "a.test", "/old/x", "gone", "respond"},
		{"GET", "a.test", "/moved", "moved", "redirect"},
		{"GET", "PAY.example.com.", "/x", "wild", "forward"},
		{"GET", "pay.example.com:8080", "/x", "wild", "forward"},
		{"GET", "other.example.com", "/x", "wild", "forward"}, // the server's name does not verify
		{"GET", "a.test", "/v2/%00", "", "refuse"},
	} {
		what := c.method + " " + c.host + c.path
		e, err := g.diagnostics.ExplainRoute(longContext(t), &adminv1.ExplainRouteRequest{Listener: "web", Method: c.method, Host: c.host, Path: c.path})
		if err != nil {
			t.Errorf("%s: %v", what, err)
			continue
		}
		if e.GetRoute() != c.route || strings.ToLower(strings.TrimPrefix(e.GetAction().String(), "EXPLAINED_ACTION_")) != c.action || e.GetWhy() == "" {
			t.Errorf("%s: explained as %v, want %s by %q", what, e, c.action, c.route)
		}
		req, err := http.NewRequestWithContext(longContext(t), c.method, base+"/", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Host, req.URL.Opaque = c.host, c.path
		resp, err := client.Do(req)
		if err != nil {
			t.Errorf("%s: %v", what, err)
			continue
		}
		body, err := readBody(resp)
		if err != nil {
			t.Error(err)
		}
		if e.GetAction() != adminv1.ExplainedAction_EXPLAINED_ACTION_FORWARD {
			if resp.StatusCode != int(e.GetCode()) {
				t.Errorf("%s: explained as %s %d, answered with %d", what, e.GetAction(), e.GetCode(), resp.StatusCode)
			}
			continue
		}
		if len(e.GetUpstreams()) != 1 || len(e.GetUpstreams()[0].GetEndpoints()) != 1 {
			t.Errorf("%s: explained as %v", what, e)
			continue
		}
		u := e.GetUpstreams()[0]
		identity := "e2e client"
		if u.GetCertificate() == "bob" {
			identity = "bob"
		}
		sni := u.GetEndpoints()[0].GetServerName()
		want := u.GetName() + " " + e.GetPath() + " " + sni + " " + identity
		if strings.HasPrefix(c.host, "other.") {
			if resp.StatusCode != 502 || sni != "other.example.com" || fmt.Sprint(u.GetEndpoints()[0].GetVerifyNames()) != "[other.example.com]" {
				t.Errorf("%s: explained as %v, answered with %d", what, u, resp.StatusCode)
			}
		} else if resp.StatusCode != 200 || body != want {
			t.Errorf("%s: explained as %q, answered with %d %q", what, want, resp.StatusCode, body)
		}
		if r := g.cli("explain", "web", "--method", c.method, "--host", c.host, "--path", c.path); r.code != 0 || !strings.Contains(r.stdout, "upstream "+u.GetName()) {
			t.Errorf("drawbridge explain: %s", r)
		}
	}
	if r := g.cli("explain", "web", "--path", "/v2/%00"); r.code == 0 {
		t.Errorf("drawbridge explain of a refusal: %s", r)
	}
}

func TestExplanationsOfConnectionsHold(t *testing.T) {
	t.Parallel()
	a := newAuthority(t)
	one, two := serveIdentity(t, a.serverConfig(t)), serveIdentity(t, a.serverConfig(t))
	g := startGateway(t)
	front := listener("raw", protocolTCP, "one")
	front.Tls = &adminv1.ServerTls{Certificates: []string{"front"}}
	second := forward("second", "raw", "", "two")
	second.Match = &adminv1.RouteMatch{Hosts: []string{"*.two.example.com"}}
	bob := &adminv1.UpstreamTls{Certificate: "bob", TrustBundles: []string{"ca"}, ServerName: serverName}
	g.apply(
		trustBundle("ca", a.ca), certificate("client", a.client), certificate("bob", clientCert(t, a.ca, "bob")), certificate("front", a.server),
		upstream("one", a.settings(), one), upstream("two", bob, two), front, second,
	)
	for sni, want := range map[string][2]string{
		"x.two.example.com": {"second", "bob"}, "X.TWO.example.com": {"second", "bob"}, "two.example.com": {"", "client"}, "": {"", "client"},
	} {
		e, err := g.diagnostics.ExplainRoute(longContext(t), &adminv1.ExplainRouteRequest{Listener: "raw", Sni: sni})
		if err != nil {
			t.Fatal(err)
		}
		if e.GetRoute() != want[0] || e.GetUpstreams()[0].GetCertificate() != want[1] {
			t.Errorf("SNI %q: explained as %v", sni, e)
		}
		conn := dialTLS(t, g.address("raw"), &tls.Config{ServerName: sni, InsecureSkipVerify: true})
		buf := make([]byte, 256)
		n, _ := conn.Read(buf)
		identity := map[string]string{"bob": "bob", "client": "e2e client"}[want[1]]
		if got := string(buf[:n]); !strings.HasPrefix(got, identity+" "+serverName) {
			t.Errorf("SNI %q: the upstream saw %q, want %s", sni, got, identity)
		}
		_ = conn.Close()
	}
}
