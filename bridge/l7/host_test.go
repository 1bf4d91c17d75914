package l7

import (
	"bufio"
	"crypto/tls"
	"strings"
	"testing"

	"github.com/drawbridge-gateway/drawbridge/bridge/cidr"
	"github.com/drawbridge-gateway/drawbridge/bridge/l7/backs"
	"github.com/drawbridge-gateway/drawbridge/bridge/l7/policy"
	"github.com/drawbridge-gateway/drawbridge/bridge/route"
	"github.com/drawbridge-gateway/drawbridge/bridge/upstream"
	"github.com/drawbridge-gateway/drawbridge/certs"
	"github.com/drawbridge-gateway/drawbridge/certs/certstest"
)

// Every valid upstream name results in a valid Host and :authority.
func TestTheUpstreamsNameIsAValidHost(t *testing.T) {
	w := newTestbed(t)
	server := w.server(echo, "h2", "http/1.1")
	for _, c := range []struct{ name, authority, want string }{
		{"inner.example", "", "inner.example"},
		{"inner.example:8443", "", "inner.example:8443"},
		{"192.0.2.1", "", "192.0.2.1"},
		{"::1", "", "[::1]"},
		{"2001:DB8:0::1", "", "[2001:db8::1]"},
		{"fe80::1%eth0", "", "[fe80::1]"},
		{"[::1]", "", "[::1]"},
		{"[::1]:8443", "", "[::1]:8443"},
		{"", "[::1]:8443", "[::1]:8443"},
		{"", "[fe80::1%eth0]:8443", "[fe80::1]:8443"},
		{"", "inner.example:8443", "inner.example:8443"},
	} {
		for _, p := range []backs.Protocol{backs.HTTP1, backs.HTTP2} {
			up := upstream.New(upstream.Options{Name: "up", ConnectTimeout: testTimeout, HandshakeTimeout: testTimeout, Endpoints: []upstream.EndpointOptions{{
				Network: "tcp", Address: server, Authority: c.authority,
				Stream: w.client(), HTTP: w.client(map[backs.Protocol]string{backs.HTTP1: "http/1.1", backs.HTTP2: "h2"}[p]),
			}}})
			_, address := w.plain(w.newBack(backs.Options{Upstream: up, Protocol: p, TLS: true, SendUpstreamHost: true, Host: c.name}))
			want := map[backs.Protocol]string{backs.HTTP1: "HTTP/1.1", backs.HTTP2: "HTTP/2.0"}[p] + " GET " + c.want + " / by gateway: "
			if code, body := w.get(w.browser(), "http://"+address+"/"); code != 200 || body != want {
				t.Errorf("name %q, authority %q: %d %q, want %q", c.name, c.authority, code, body, want)
			}
		}
	}
}

// An HTTP/1.0 request without a Host, as health checkers send it, matches only
// routes without hosts. The upstream receives its own name as the Host.
func TestHTTP10WithoutAHost(t *testing.T) {
	schemes(t, func(t *testing.T, w *testbed, table *Table, scheme string) {
		for _, p := range []backs.Protocol{backs.HTTP1, backs.HTTP2} {
			server := w.server(seen, "h2", "http/1.1")
			back := w.back(p, server)
			elsewhere := to(w.back(backs.HTTP1, w.closed()))
			path := func(p string) route.Path { return route.Path{Kind: route.PathExact, Value: p} }
			table := &Table{TLS: table.TLS, Default: to(back), Forwarding: policy.SendBoth}
			table.Routes = w.routes(
				route.Rule[*Action]{Name: "host", Hosts: []string{"a.example"}, Value: elsewhere},
				route.Rule[*Action]{Name: "wildcard", Hosts: []string{"*.example"}, Value: elsewhere},
				route.Rule[*Action]{Name: "path", Path: path("/status"), Value: &Action{Respond: &Respond{Body: "up"}}},
				route.Rule[*Action]{Name: "moved", Path: path("/moved"), Value: &Action{Redirect: &Redirect{Path: "/x"}}},
				route.Rule[*Action]{Name: "moved away", Path: path("/away"), Value: &Action{Redirect: &Redirect{Host: "b.example"}}},
			)
			_, address := w.gateway(fixed(table))
			for _, c := range []struct {
				line     string
				code     int
				body     string
				location string
			}{
				{"GET /x HTTP/1.0", 200, server + " ", ""},
				{"GET /status HTTP/1.0", 200, "up", ""},
				{"GET /moved HTTP/1.0", 400, "", ""},
				{"GET /away HTTP/1.0", 302, "", scheme + "://b.example/away"},
				{"GET /x HTTP/1.1", 400, "", ""},
			} {
				conn := w.dial(address)
				if scheme == "https" {
					conn = overTLS(w, conn)
				}
				conn.send(c.line)
				res, body := conn.answer(t, "GET")
				if res.StatusCode != c.code || !strings.HasPrefix(body, c.body) || res.Header.Get("Location") != c.location {
					t.Errorf("%s: %d %q %v", c.line, res.StatusCode, body, res.Header)
				}
				if strings.Contains(body, "X-Forwarded-Host") || strings.Contains(body, "host=") {
					t.Errorf("%s: the upstream received a host: %q", c.line, body)
				}
				conn.Close()
			}
		}
	})
}

// overTLS starts a client's TLS on a connection.
func overTLS(w *testbed, c *rawConn) *rawConn {
	tc := tls.Client(c.Conn, &tls.Config{RootCAs: w.ca.Pool(), ServerName: "localhost"})
	return &rawConn{tc, bufio.NewReader(tc)}
}

// In such a request, a trusted proxy's X-Forwarded-Host is the host, but conditions
// do not see it.
func TestHTTP10WithoutAHostBehindAProxy(t *testing.T) {
	w := newTestbed(t)
	proxies, _ := cidr.ParsePeers([]string{"127.0.0.1"})
	_, address := w.gateway(fixed(&Table{TrustedProxies: proxies, Default: &Action{Redirect: &Redirect{Path: "/x"}}}))
	c := w.dial(address)
	c.send("GET / HTTP/1.0", "X-Forwarded-Host: a.example:81")
	if res, _ := c.answer(t, "GET"); res.StatusCode != 302 || res.Header.Get("Location") != "http://a.example:81/x" {
		t.Errorf("%d %v", res.StatusCode, res.Header)
	}
}

// An upstream that takes its server name from the request needs a request with
// a host.
func TestHTTP10WithoutAHostNeedsAServerName(t *testing.T) {
	w := newTestbed(t)
	up := upstream.New(upstream.Options{Name: "up", ConnectTimeout: testTimeout, HandshakeTimeout: testTimeout, Endpoints: []upstream.EndpointOptions{{
		Network: "tcp", Address: w.server(echo), Stream: w.client(), HTTP: fromHost(w),
	}}})
	_, address := w.plain(w.newBack(backs.Options{Upstream: up, TLS: true}))
	for _, c := range []struct {
		lines []string
		code  int
	}{{[]string{"GET / HTTP/1.0"}, 400}, {[]string{"GET / HTTP/1.0", "Host: localhost"}, 200}} {
		conn := w.dial(address)
		conn.send(c.lines...)
		if res, body := conn.answer(t, "GET"); res.StatusCode != c.code {
			t.Errorf("%q: %d %q", c.lines, res.StatusCode, body)
		}
	}
	if n := up.Status()[0].Requests; n != 1 {
		t.Errorf("the endpoint counts %d requests", n)
	}
}

// fromHost returns a client that takes the server name of each handshake from
// the request.
func fromHost(w *testbed) *certs.Client {
	c, err := certs.NewClient(certs.ClientOptions{
		Certificate: certstest.Certificate(w, w.ca.Client(w, "gateway")),
		Trust:       []*certs.TrustBundle{w.ca.Trust(w)}, FromHost: true, NextProtos: []string{"http/1.1"},
	})
	if err != nil {
		w.Fatal(err)
	}
	return c
}
