package l7

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/drawbridge-gateway/drawbridge/bridge/cidr"
	"github.com/drawbridge-gateway/drawbridge/bridge/l7/backs"
	"github.com/drawbridge-gateway/drawbridge/bridge/route"
)

func peers(t testing.TB, texts ...string) *cidr.Peers {
	t.Helper()
	p, faults := cidr.ParsePeers(texts)
	if faults != nil {
		t.Fatal(faults)
	}
	return p
}

func addresses(t testing.TB, texts ...string) *cidr.Set {
	t.Helper()
	s, faults := cidr.Parse(texts)
	if faults != nil {
		t.Fatal(faults)
	}
	return s
}

// Behind a proxy that terminates TLS, only requests that reached the proxy over
// http are redirected to https. Otherwise the redirect would loop.
func TestRedirectsToHTTPSBehindAProxy(t *testing.T) {
	w := newTestbed(t)
	toHTTPS := &Action{Route: "secure", Redirect: &Redirect{Code: 301, Scheme: "https"}}
	_, address := w.gateway(fixed(&Table{
		TrustedProxies: peers(t, "127.0.0.1"),
		Routes:         w.routes(route.Rule[*Action]{Name: "secure", NotScheme: "https", Value: toHTTPS}),
		Default:        to(w.back(backs.Auto, w.server(seen))),
	}))
	_, untrusting := w.gateway(fixed(&Table{
		Routes:  w.routes(route.Rule[*Action]{Name: "secure", NotScheme: "https", Value: toHTTPS}),
		Default: to(w.back(backs.Auto, w.server(seen))),
	}))
	for _, c := range []struct {
		address, fields, location string
	}{
		{address, "A: b", "https://a.example/x?y"},
		{address, "X-Forwarded-Proto: http", "https://a.example/x?y"},
		{address, "X-Forwarded-Proto: http\r\nX-Forwarded-Host: www.example:81", "https://www.example/x?y"},
		{address, "X-Forwarded-Proto: https", ""},
		{untrusting, "X-Forwarded-Proto: https", "https://a.example/x?y"},
	} {
		conn := w.dial(c.address)
		conn.send("GET /x?y HTTP/1.1", "Host: a.example:8080", c.fields)
		res, body := conn.answer(t, "GET")
		switch {
		case c.location == "" && (res.StatusCode != 200 || !strings.Contains(body, "X-Forwarded-Proto: https")):
			t.Errorf("%s: %d %q", c.fields, res.StatusCode, body)
		case c.location != "" && (res.StatusCode != 301 || res.Header.Get("Location") != c.location):
			t.Errorf("%s: %d to %q, want %q", c.fields, res.StatusCode, res.Header.Get("Location"), c.location)
		}
	}
}

// A condition on X-Forwarded-Proto matches the scheme that the gateway
// determined, not the client's claim.
func TestConditionsOnTheForwardedScheme(t *testing.T) {
	w := newTestbed(t)
	for _, trusted := range []bool{true, false} {
		table := &Table{Routes: w.routes(
			route.Rule[*Action]{Name: "http", Headers: []route.Header{{Name: "x-forwarded-proto", Exact: text("http")}}, Value: &Action{Respond: &Respond{Body: "http"}}},
			route.Rule[*Action]{Name: "https", Headers: []route.Header{{Name: "X-Forwarded-Proto", Exact: text("https")}}, Value: &Action{Respond: &Respond{Body: "https"}}},
		)}
		if trusted {
			table.TrustedProxies = peers(t, "127.0.0.1")
		}
		_, address := w.gateway(fixed(table))
		for given, want := range map[string]string{"http": "http", "https": map[bool]string{true: "https", false: "http"}[trusted]} {
			c := w.dial(address)
			c.send("GET / HTTP/1.1", "Host: a", "X-Forwarded-Proto: "+given)
			if _, body := c.answer(t, "GET"); body != want {
				t.Errorf("%s, trusted %v: %q", given, trusted, body)
			}
			if r := table.Resolve(Question{Method: "GET", Host: "a", Target: "/", Header: http.Header{"X-Forwarded-Proto": {given}}}); r.Action.Respond.Body != want {
				t.Errorf("%s, trusted %v: resolved to %q", given, trusted, r.Action.Respond.Body)
			}
		}
	}
}

func text(s string) *string { return &s }

// The gateway closes the connection of a client without access before it reads
// from it. Behind a trusted proxy, the client of each request decides about
// access.
func TestClientsWithoutAccess(t *testing.T) {
	w := newTestbed(t)
	respond := &Action{Respond: &Respond{Body: "served"}}
	t.Run("connections", func(t *testing.T) {
		for name, c := range map[string]struct {
			access *cidr.Access
			served bool
		}{
			"allowed":     {&cidr.Access{Allow: addresses(t, "127.0.0.0/8")}, true},
			"not allowed": {&cidr.Access{Allow: addresses(t, "192.0.2.0/24")}, false},
			"denied":      {&cidr.Access{Deny: addresses(t, "127.0.0.1")}, false},
		} {
			s, address := w.gateway(fixed(&Table{Access: c.access, Default: respond}))
			conn := w.dial(address)
			fmt.Fprint(conn, "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n") // may fail on a closed connection
			got, _ := io.ReadAll(conn)
			if strings.Contains(string(got), "served") != c.served || !c.served && len(got) > 0 {
				t.Errorf("%s: %q", name, got)
			}
			if st := s.Stats(); (st.Denied == 1) == c.served || (st.Accepted == 1) != c.served {
				t.Errorf("%s: %+v", name, st)
			}
		}
	})
	t.Run("announced", func(t *testing.T) {
		s, address := w.gateway(fixed(&Table{ProxyProtocol: w.trust("127.0.0.1"), Access: &cidr.Access{Deny: addresses(t, "192.0.2.9")}, Default: respond}))
		for ip, served := range map[string]bool{"192.0.2.1": true, "192.0.2.9": false} {
			conn := w.dial(address)
			fmt.Fprintf(conn, "PROXY TCP4 %s 198.51.100.2 1 2\r\nGET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", ip)
			if got, _ := io.ReadAll(conn); strings.Contains(string(got), "served") != served || !served && len(got) > 0 {
				t.Errorf("%s: %q", ip, got)
			}
		}
		eventually(t, "the connection is counted and closed", func() bool { st := s.Stats(); return st.Denied == 1 && st.Open == 0 })
	})
	t.Run("behind a proxy", func(t *testing.T) {
		table := &Table{TrustedProxies: peers(t, "127.0.0.1"), Access: &cidr.Access{Allow: addresses(t, "192.0.2.0/24"), Deny: addresses(t, "192.0.2.9")}, Default: respond}
		_, address := w.gateway(fixed(table))
		conn := w.dial(address)
		for _, c := range []struct {
			fields []string
			code   int
		}{
			{[]string{"X-Forwarded-For: 192.0.2.1"}, 200},
			{[]string{"X-Forwarded-For: 192.0.2.9"}, 403},
			{[]string{"X-Forwarded-For: 192.0.2.1, 198.51.100.1"}, 403}, // the claim of an untrusted peer does not count
			{[]string{"X-Forwarded-For: 192.0.2.1", "X-Forwarded-For: 192.0.2.9"}, 403},
			{nil, 403},
			{[]string{"X-Forwarded-For: garbage"}, 403},
			{[]string{"X-Forwarded-For: 192.0.2.2"}, 200}, // the connection stays open
		} {
			conn.send(append([]string{"GET / HTTP/1.1", "Host: a"}, c.fields...)...)
			res, body := conn.answer(t, "GET")
			if res.StatusCode != c.code || c.code == 403 && body != "forbidden\n" {
				t.Errorf("%v: %d %q, want %d", c.fields, res.StatusCode, body, c.code)
			}
		}
		conn.send("POST /s/M HTTP/1.1", "Host: a", "Content-Type: application/grpc", "Content-Length: 0")
		if res, _ := conn.answer(t, "POST"); res.StatusCode != 200 || res.Header.Get("Grpc-Status") != "7" {
			t.Errorf("gRPC: %d %v", res.StatusCode, res.Header)
		}
	})
	t.Run("access removed meanwhile", func(t *testing.T) {
		var table atomic.Pointer[Table]
		table.Store(&Table{Default: respond})
		_, address := w.gateway(table.Load)
		conn := w.dial(address)
		conn.send("GET / HTTP/1.1", "Host: a")
		conn.answer(t, "GET")
		table.Store(&Table{Access: &cidr.Access{Deny: addresses(t, "127.0.0.1")}, Default: respond})
		conn.send("GET / HTTP/1.1", "Host: a")
		if res, _ := conn.answer(t, "GET"); res.StatusCode != 403 {
			t.Errorf("%d", res.StatusCode)
		}
	})
}
