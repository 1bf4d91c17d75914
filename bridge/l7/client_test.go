package l7

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/drawbridge-gateway/drawbridge/bridge/cidr"
	"github.com/drawbridge-gateway/drawbridge/bridge/l7/message"
	"github.com/drawbridge-gateway/drawbridge/bridge/proxyproto"
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

// exchangeOf returns the exchange of a request of a client at an address, as it
// is when it is decided on; "" is a client of a unix-domain socket.
func exchangeOf(table *Table, from string, f message.Fields) *exchange {
	s := &Server{options: Options{Listener: "front"}}
	c := &conn{server: s}
	var source, destination net.Addr = &net.UnixAddr{Net: "unix"}, &net.UnixAddr{Net: "unix"}
	if from != "" {
		source = net.TCPAddrFromAddrPort(netip.MustParseAddrPort(from))
		destination = net.TCPAddrFromAddrPort(netip.MustParseAddrPort("198.51.100.2:8080"))
	}
	c.is(proxyproto.Announced{Source: source, Destination: destination})
	x := s.begin(nil, &message.Request{Method: "GET", Target: "/", Authority: "a.example", Major: 1, Minor: 1, Fields: f}, c)
	x.table, x.action = table, &Action{}
	x.target = target{host: "a.example", authority: "a.example", path: "/"}
	return x
}

func TestTheClientIsTheLastThatIsNoTrustedProxy(t *testing.T) {
	trusting := &Table{TrustedProxies: peers(t, "10.0.0.0/8", "2001:db8::/32", cidr.FromUnix)}
	for name, c := range map[string]struct {
		table  *Table
		from   string
		fields message.Fields
		client string
		told   string // X-Forwarded-For to the upstream
		port   string
	}{
		"nobody is trusted":            {&Table{}, "10.0.0.1:5", fields("X-Forwarded-For: 192.0.2.1"), "10.0.0.1", "10.0.0.1", "5"},
		"not from a proxy":             {trusting, "192.0.2.9:5", fields("X-Forwarded-For: 192.0.2.1"), "192.0.2.9", "192.0.2.9", "5"},
		"one proxy":                    {trusting, "10.0.0.1:5", fields("X-Forwarded-For: 192.0.2.1"), "192.0.2.1", "192.0.2.1, 10.0.0.1", ""},
		"what the client said before":  {trusting, "10.0.0.1:5", fields("X-Forwarded-For: 127.0.0.1, 192.0.2.1"), "192.0.2.1", "192.0.2.1, 10.0.0.1", ""},
		"garbage the client said":      {trusting, "10.0.0.1:5", fields("X-Forwarded-For: <script>, 192.0.2.1"), "192.0.2.1", "192.0.2.1, 10.0.0.1", ""},
		"a client that says a proxy's": {trusting, "10.0.0.1:5", fields("X-Forwarded-For: 10.0.0.9, 192.0.2.1"), "192.0.2.1", "192.0.2.1, 10.0.0.1", ""},
		"two proxies":                  {trusting, "10.0.0.1:5", fields("X-Forwarded-For: 192.0.2.1, 10.0.0.2"), "192.0.2.1", "192.0.2.1, 10.0.0.2, 10.0.0.1", ""},
		"in several fields":            {trusting, "10.0.0.1:5", fields("X-Forwarded-For: 6.6.6.6", "A: b", "x-forwarded-for: 192.0.2.1,10.0.0.3", "X-FORWARDED-FOR:  10.0.0.2 "), "192.0.2.1", "192.0.2.1, 10.0.0.3, 10.0.0.2, 10.0.0.1", ""},
		"empty entries":                {trusting, "10.0.0.1:5", fields("X-Forwarded-For: ,192.0.2.1,, ,10.0.0.2,\t"), "192.0.2.1", "192.0.2.1, 10.0.0.2, 10.0.0.1", ""},
		"proxies alone":                {trusting, "10.0.0.1:5", fields("X-Forwarded-For: 10.0.0.3, 10.0.0.2"), "10.0.0.3", "10.0.0.3, 10.0.0.2, 10.0.0.1", ""},
		"nothing is said":              {trusting, "10.0.0.1:5", nil, "10.0.0.1", "10.0.0.1", "5"},
		"an empty field":               {trusting, "10.0.0.1:5", fields("X-Forwarded-For: "), "10.0.0.1", "10.0.0.1", "5"},
		"another spelling":             {trusting, "10.0.0.1:5", fields("X_Forwarded_For: 192.0.2.1"), "10.0.0.1", "10.0.0.1", "5"},
		"garbage":                      {trusting, "10.0.0.1:5", fields("X-Forwarded-For: unknown"), "10.0.0.1", "10.0.0.1", "5"},
		"garbage behind a proxy":       {trusting, "10.0.0.1:5", fields("X-Forwarded-For: 192.0.2.1, what?, 10.0.0.2"), "10.0.0.1", "10.0.0.1", "5"},
		"a zone":                       {trusting, "10.0.0.1:5", fields("X-Forwarded-For: fe80::1%eth0"), "10.0.0.1", "10.0.0.1", "5"},
		"a host":                       {trusting, "10.0.0.1:5", fields("X-Forwarded-For: localhost"), "10.0.0.1", "10.0.0.1", "5"},
		"with a port":                  {trusting, "10.0.0.1:5", fields("X-Forwarded-For: 192.0.2.1:4711"), "192.0.2.1", "192.0.2.1, 10.0.0.1", ""},
		"IPv6":                         {trusting, "[2001:db8::1]:5", fields("X-Forwarded-For: 2001:DB9:0::1, 2001:db8::2"), "2001:db9::1", "2001:db9::1, 2001:db8::2, 2001:db8::1", ""},
		"IPv6 in brackets":             {trusting, "10.0.0.1:5", fields("X-Forwarded-For: [2001:db9::1]"), "2001:db9::1", "2001:db9::1, 10.0.0.1", ""},
		"IPv6 with a port":             {trusting, "10.0.0.1:5", fields("X-Forwarded-For: [2001:db9::1]:4711"), "2001:db9::1", "2001:db9::1, 10.0.0.1", ""},
		"IPv4 in brackets":             {trusting, "10.0.0.1:5", fields("X-Forwarded-For: [192.0.2.1]"), "10.0.0.1", "10.0.0.1", "5"},
		"IPv4 as IPv6":                 {trusting, "[::ffff:10.0.0.1]:5", fields("X-Forwarded-For: ::ffff:192.0.2.1, ::ffff:10.0.0.2"), "192.0.2.1", "192.0.2.1, 10.0.0.2, 10.0.0.1", ""},
		"over a unix-domain socket":    {trusting, "", fields("X-Forwarded-For: 192.0.2.1"), "192.0.2.1", "192.0.2.1", ""},
		"unix, nothing is said":        {trusting, "", nil, "", "", ""},
		"unix, of which none is":       {&Table{TrustedProxies: peers(t, "10.0.0.0/8")}, "", fields("X-Forwarded-For: 192.0.2.1"), "", "", ""},
		"long":                         {trusting, "10.0.0.1:5", fields("X-Forwarded-For: " + strings.Repeat("10.0.0.2, ", 63) + "10.0.0.3"), "10.0.0.2", strings.Repeat("10.0.0.2, ", 63) + "10.0.0.3, 10.0.0.1", ""},
		"too long":                     {trusting, "10.0.0.1:5", fields("X-Forwarded-For: " + strings.Repeat("10.0.0.2, ", 64) + "10.0.0.3"), "10.0.0.1", "10.0.0.1", "5"},
		"an endless entry":             {trusting, "10.0.0.1:5", fields("X-Forwarded-For: " + strings.Repeat("1", 10000)), "10.0.0.1", "10.0.0.1", "5"},
	} {
		x := exchangeOf(c.table, c.from, c.fields)
		x.identify()
		cleanRequest(x.request)
		x.setForwarding()
		told := slices.Collect(x.request.Fields.Values("X-Forwarded-For"))
		if got := strings.Join(told, "|"); x.client != c.client || got != c.told || x.clientPort() != c.port {
			t.Errorf("%s: the client is %q, port %q, and the upstream is told %q; want %q, %q, %q", name, x.client, x.clientPort(), got, c.client, c.port, c.told)
		}
		if want, _ := netip.ParseAddr(c.client); x.addr != want {
			t.Errorf("%s: the client is at %v", name, x.addr)
		}
	}
}

func TestWhatTrustedProxiesSayOfTheRequest(t *testing.T) {
	trusting := &Table{TrustedProxies: peers(t, "10.0.0.1")}
	for name, c := range map[string]struct {
		from                string
		fields              message.Fields
		scheme, host, port_ string
	}{
		"nothing":                 {"10.0.0.1:5", nil, "http", "a.example", "80"},
		"from somebody":           {"10.0.0.2:5", fields("X-Forwarded-Proto: https", "X-Forwarded-Host: b", "X-Forwarded-Port: 1"), "http", "a.example", "8080"},
		"https":                   {"10.0.0.1:5", fields("X-Forwarded-Proto: https"), "https", "a.example", "443"},
		"in another case":         {"10.0.0.1:5", fields("x-forwarded-proto: HTTPS"), "https", "a.example", "443"},
		"a host":                  {"10.0.0.1:5", fields("X-Forwarded-Host: B.example."), "http", "b.example", "80"},
		"a host with a port":      {"10.0.0.1:5", fields("X-Forwarded-Host: b.example:81", "X-Forwarded-Proto: https"), "https", "b.example:81", "81"},
		"a port":                  {"10.0.0.1:5", fields("X-Forwarded-Port: 8443", "X-Forwarded-Proto: https"), "https", "a.example", "8443"},
		"all":                     {"10.0.0.1:5", fields("X-Forwarded-Port: 8443", "X-Forwarded-Proto: https", "X-Forwarded-Host: [2001:DB8::1]:1"), "https", "[2001:db8::1]:1", "8443"},
		"two schemes":             {"10.0.0.1:5", fields("X-Forwarded-Proto: https, http"), "http", "a.example", "80"},
		"two fields":              {"10.0.0.1:5", fields("X-Forwarded-Proto: https", "X-Forwarded-Proto: https"), "http", "a.example", "80"},
		"another scheme":          {"10.0.0.1:5", fields("X-Forwarded-Proto: wss"), "http", "a.example", "80"},
		"another spelling":        {"10.0.0.1:5", fields("X_Forwarded_Proto: https", "X-Forwarded_Host: b"), "http", "a.example", "80"},
		"no host":                 {"10.0.0.1:5", fields("X-Forwarded-Host: b/c"), "http", "a.example", "80"},
		"a user":                  {"10.0.0.1:5", fields("X-Forwarded-Host: u@b"), "http", "a.example", "80"},
		"hosts":                   {"10.0.0.1:5", fields("X-Forwarded-Host: b, c"), "http", "a.example", "80"},
		"an empty host":           {"10.0.0.1:5", fields("X-Forwarded-Host: "), "http", "a.example", "80"},
		"no port":                 {"10.0.0.1:5", fields("X-Forwarded-Port: 0"), "http", "a.example", "80"},
		"no port's number":        {"10.0.0.1:5", fields("X-Forwarded-Port: 65536"), "http", "a.example", "80"},
		"no number":               {"10.0.0.1:5", fields("X-Forwarded-Port: +80"), "http", "a.example", "80"},
		"a number with a zero":    {"10.0.0.1:5", fields("X-Forwarded-Port: 0443"), "http", "a.example", "80"},
		"named in Connection too": {"10.0.0.1:5", fields("X-Forwarded-Proto: https", "Connection: X-Forwarded-Proto"), "https", "a.example", "443"},
	} {
		x := exchangeOf(trusting, c.from, c.fields)
		x.identify()
		cleanRequest(x.request)
		x.setForwarding()
		got := x.request.Fields
		want := fields("X-Forwarded-For: "+c.from[:8], "X-Forwarded-Host: "+c.host, "X-Forwarded-Port: "+c.port_, "X-Forwarded-Proto: "+c.scheme)
		if x.scheme != c.scheme || !slices.Equal(got, want) {
			t.Errorf("%s: %s, %v; want %v", name, x.scheme, got, want)
		}
	}
}

func FuzzFollowForwarded(f *testing.F) {
	f.Add("192.0.2.1, 10.0.0.2", "10.0.0.3")
	f.Add(",,[::1]:80,", " x")
	table := &Table{TrustedProxies: peers(f, "10.0.0.0/8", "::1")}
	f.Fuzz(func(t *testing.T, one, two string) {
		x := exchangeOf(table, "10.0.0.1:1", message.Fields{{Name: "X-Forwarded-For", Value: one}, {Name: "X-Forwarded-For", Value: two}})
		x.identify()
		x.setForwarding()
		told, _ := x.request.Fields[2:].Get("X-Forwarded-For")
		if !strings.HasPrefix(told, x.client) || !message.IsValue(told) {
			t.Fatalf("%q is told of %q", told, x.client)
		}
		if len(x.hops) == maxHops {
			return // with us it is one too many
		}
		// What is told leads the next gateway, who trusts us too, to the same client.
		next := exchangeOf(table, "10.0.0.1:1", message.Fields{{Name: "X-Forwarded-For", Value: told}})
		if next.identify(); next.client != x.client {
			t.Fatalf("%q leads to %q, not to %q", told, next.client, x.client)
		}
	})
}

// Behind a proxy that ends TLS a redirect to https is for those who came by http,
// and leads nobody round in circles.
func TestRedirectsToHTTPSBehindAProxy(t *testing.T) {
	w := newWorld(t)
	toHTTPS := &Action{Route: "secure", Redirect: &Redirect{Code: 301, Scheme: "https"}}
	_, address := w.gateway(fixed(&Table{
		TrustedProxies: peers(t, "127.0.0.1"),
		Routes:         w.routes(route.Rule[*Action]{Name: "secure", NotScheme: "https", Value: toHTTPS}),
		Default:        to(w.back(Auto, w.server(seen))),
	}))
	_, untrusting := w.gateway(fixed(&Table{
		Routes:  w.routes(route.Rule[*Action]{Name: "secure", NotScheme: "https", Value: toHTTPS}),
		Default: to(w.back(Auto, w.server(seen))),
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

// A condition on X-Forwarded-Proto is about the scheme that the gateway believes.
func TestConditionsOnTheForwardedScheme(t *testing.T) {
	w := newWorld(t)
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

// Whoever has no access is closed before anything is read. Behind a trusted proxy
// each request is judged by its client.
func TestClientsWithoutAccess(t *testing.T) {
	w := newWorld(t)
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
			fmt.Fprint(conn, "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n") // may find it closed
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
		eventually(t, "it is counted, and gone", func() bool { st := s.Stats(); return st.Denied == 1 && st.Open == 0 })
		s.mu.Lock()
		defer s.mu.Unlock()
		if len(s.perClient) != 0 {
			t.Errorf("clients are counted that are gone: %v", s.perClient)
		}
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
			{[]string{"X-Forwarded-For: 192.0.2.1, 198.51.100.1"}, 403}, // who it says it is does not count
			{[]string{"X-Forwarded-For: 192.0.2.1", "X-Forwarded-For: 192.0.2.9"}, 403},
			{nil, 403},
			{[]string{"X-Forwarded-For: nobody"}, 403},
			{[]string{"X-Forwarded-For: 192.0.2.2"}, 200}, // the connection goes on
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
	t.Run("taken away meanwhile", func(t *testing.T) {
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
