package l7

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/drawbridge-gateway/drawbridge/bridge/cidr"
	"github.com/drawbridge-gateway/drawbridge/bridge/l7/backs"
	"github.com/drawbridge-gateway/drawbridge/bridge/proxyproto"
	"github.com/drawbridge-gateway/drawbridge/bridge/upstream"
)

// A domain is an upstream that authenticates connections, as NTLM servers do: every
// request on a connection belongs to the user that logged in on it.
type domain struct {
	challenges []string // WWW-Authenticate
	logins     atomic.Int64
}

// A loginState is the state of the login on a connection.
type loginState struct {
	mu    sync.Mutex
	asked bool // the second message was sent
	user  string
}

type loginKey struct{}

func withLogin(ctx context.Context, _ net.Conn) context.Context {
	return context.WithValue(ctx, loginKey{}, new(loginState))
}

// ServeHTTP accepts these credentials, with a scheme in any case: "NTLM 1",
// then "NTLM 3 USER" on the same connection; or at once "Negotiate USER".
func (d *domain) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	_, _ = io.Copy(io.Discard, r.Body)
	state := r.Context().Value(loginKey{}).(*loginState)
	state.mu.Lock()
	defer state.mu.Unlock()
	switch words := strings.Fields(r.Header.Get("Authorization")); {
	case len(words) == 2 && strings.EqualFold(words[0], "NTLM") && words[1] == "1":
		state.asked = true
		w.Header().Set("WWW-Authenticate", words[0]+" 2")
		w.WriteHeader(401)
		return
	case len(words) == 3 && strings.EqualFold(words[0], "NTLM") && words[1] == "3" && state.asked:
		d.logins.Add(1)
		state.user = words[2]
	case len(words) == 2 && strings.EqualFold(words[0], "Negotiate"):
		d.logins.Add(1)
		state.user = words[1]
		w.Header().Set("WWW-Authenticate", "Negotiate done")
	}
	if state.user == "" {
		w.Header()["WWW-Authenticate"] = d.challenges
		w.WriteHeader(401)
		return
	}
	fmt.Fprint(w, state.user)
}

// serve starts the domain, with TLS if protos are given.
func (d *domain) serve(w *testbed, protos ...string) (address string) {
	srv := &http.Server{Handler: d, ConnContext: withLogin}
	ln := listen(w)
	done := make(chan struct{})
	if len(protos) > 0 {
		srv.TLSConfig = w.serverTLS(protos...)
		go func() { defer close(done); _ = srv.ServeTLS(ln, "", "") }()
	} else {
		go func() { defer close(done); _ = srv.Serve(ln) }()
	}
	w.Cleanup(func() { srv.Close(); <-done })
	return ln.Addr().String()
}

// ask sends a request and returns its status and body.
func (c *rawConn) ask(t testing.TB, lines ...string) (int, string) {
	t.Helper()
	c.send(append([]string{"GET / HTTP/1.1", "Host: localhost"}, lines...)...)
	res, body := c.answer(t, "GET")
	return res.StatusCode, body
}

// is checks the user that the upstream sees for a client; "" means not logged
// in.
func (c *rawConn) is(t testing.TB, user string, lines ...string) {
	t.Helper()
	want := 200
	if user == "" {
		want = 401
	}
	if code, body := c.ask(t, lines...); code != want || body != user {
		t.Errorf("the upstream answers %d %q, want user %q", code, body, user)
	}
}

// logIn logs a client in with three messages.
func (c *rawConn) logIn(t testing.TB, scheme, user string) {
	t.Helper()
	c.is(t, "")
	c.is(t, "", "Authorization: "+scheme+" 1")
	c.is(t, user, "Authorization: "+scheme+" 3 "+user)
}

// A client that logs in on its connection is served as that user. No other
// client is served as that user.
func TestLoginsThatAuthenticateConnections(t *testing.T) {
	plainBack := func(w *testbed, address string) *backs.Pools {
		return w.newBack(backs.Options{Upstream: plaintext(address)})
	}
	for name, c := range map[string]struct {
		challenges []string
		scheme     string
		protos     []string // protocols of the upstream
		back       func(w *testbed, address string) *backs.Pools
	}{
		"NTLM":                {[]string{"NTLM"}, "NTLM", []string{"http/1.1"}, nil},
		"in another case":     {[]string{"ntlm"}, "ntlm", []string{"http/1.1"}, nil},
		"in several fields":   {[]string{`Basic realm="a"`, "Negotiate", "NTLM"}, "NTLM", []string{"http/1.1"}, nil},
		"in one field":        {[]string{`Basic realm="a, b", NTLM, Negotiate`}, "NTLM", []string{"http/1.1"}, nil},
		"without a challenge": {[]string{`Basic realm="a"`}, "NTLM", []string{"http/1.1"}, nil},
		"plaintext":           {[]string{"NTLM"}, "NTLM", nil, plainBack},
		"an upstream of either version": {[]string{"NTLM"}, "NTLM", []string{"h2", "http/1.1"}, func(w *testbed, address string) *backs.Pools {
			return w.back(backs.Auto, address)
		}},
		"names from hosts": {[]string{"NTLM"}, "NTLM", []string{"http/1.1"}, func(w *testbed, address string) *backs.Pools {
			return w.newBack(backs.Options{TLS: true, Upstream: upstream.New(upstream.Options{Name: "up", ConnectTimeout: testTimeout, HandshakeTimeout: testTimeout, Endpoints: []upstream.EndpointOptions{
				{Network: "tcp", Address: address, Stream: fromHost(w), HTTP: fromHost(w)},
			}})})
		}},
	} {
		for _, listener := range []string{"http", "https"} {
			t.Run(name+"/"+listener, func(t *testing.T) {
				w, d := newTestbed(t), &domain{challenges: c.challenges}
				server := d.serve(w, c.protos...)
				back := w.back(backs.HTTP1, server)
				if c.back != nil {
					back = c.back(w, server)
				}
				table := &Table{Default: to(back)}
				if listener == "https" {
					table.TLS = w.listenerTLS("http/1.1")
				}
				_, address := w.gateway(fixed(table))
				client := func() *rawConn {
					c := w.dial(address)
					if listener == "https" {
						c = overTLS(w, c)
					}
					return c
				}
				alice, bob, anonymous := client(), client(), client()
				anonymous.is(t, "")
				alice.logIn(t, c.scheme, "alice")
				for range 3 {
					anonymous.is(t, "")
					client().is(t, "")
					alice.is(t, "alice")
				}
				bob.logIn(t, c.scheme, "bob")
				for range 3 {
					anonymous.is(t, "")
					client().is(t, "")
					alice.is(t, "alice")
					bob.is(t, "bob")
				}
				alice.Close()
				for range 3 {
					client().is(t, "")
				}
				if n := d.logins.Load(); n != 2 {
					t.Errorf("%d logins", n)
				}
			})
		}
	}
}

// A client stays at the endpoint where it is logged in. The upstream connection ends
// with the client's connection.
func TestALoginStaysAtItsEndpoint(t *testing.T) {
	w, d := newTestbed(t), &domain{challenges: []string{"NTLM"}}
	back := w.back(backs.HTTP1, d.serve(w, "http/1.1"), d.serve(w, "http/1.1"), d.serve(w, "http/1.1"))
	_, address := w.plain(back)
	open := func() (n uint64) {
		for _, e := range back.Upstream().Status() {
			n += uint64(e.Open)
		}
		return n
	}
	for range 5 {
		c := w.dial(address)
		c.logIn(t, "NTLM", "alice")
		for range 7 {
			c.is(t, "alice")
		}
		if n := open(); n != 1 {
			t.Errorf("%d connections to the upstream", n)
		}
		c.Close()
		eventually(t, "the connection to the upstream is closed", func() bool { return open() == 0 })
	}
}

// If a client's connection carries requests of several users, a login applies to one
// request only.
func TestLoginsOnConnectionsOfManyUsers(t *testing.T) {
	proxies, _ := cidr.ParsePeers([]string{"127.0.0.1"})
	for name, c := range map[string]struct {
		listener string
		protocol backs.Protocol
		table    Table
	}{
		"HTTP/2, to HTTP/1.1":        {"https", backs.HTTP1, Table{}},
		"HTTP/2, to HTTP/2":          {"https", backs.HTTP2, Table{}},
		"HTTP/2, to either":          {"https", backs.Auto, Table{}},
		"a trusted proxy":            {"http", backs.HTTP1, Table{TrustedProxies: proxies}},
		"a trusted proxy, to HTTP/2": {"http", backs.HTTP2, Table{TrustedProxies: proxies}},
		"a trusted proxy, to either": {"http", backs.Auto, Table{TrustedProxies: proxies}},
	} {
		t.Run(name, func(t *testing.T) {
			w, d := newTestbed(t), &domain{challenges: []string{"Negotiate"}}
			back := w.back(c.protocol, d.serve(w, "h2", "http/1.1"))
			table := c.table
			table.Default = to(back)
			if c.listener == "https" {
				table.TLS = w.listenerTLS("h2", "http/1.1")
			}
			s, address := w.gateway(fixed(&table))
			browser := w.browser()
			get := func(authorization string) string {
				r, _ := http.NewRequest("GET", c.listener+"://"+address, nil)
				if authorization != "" {
					r.Header.Set("Authorization", authorization)
				}
				res, err := browser.Do(r)
				if err != nil {
					t.Fatal(err)
				}
				defer res.Body.Close()
				body, _ := io.ReadAll(res.Body)
				return fmt.Sprint(res.StatusCode, string(body))
			}
			for i := range 5 {
				user := fmt.Sprint("user", i)
				if got := get(""); got != "401" {
					t.Errorf("without a login: %q", got)
				}
				if got := get("negotiate " + user); got != "200"+user {
					t.Errorf("with a login: %q", got)
				}
				if got := get(""); got != "401" {
					t.Errorf("after a login: %q", got)
				}
			}
			if n := s.Stats().Accepted; n != 1 {
				t.Errorf("%d connections of clients", n)
			}
			eventually(t, "no connection is kept for a login", func() bool { return back.Upstream().Status()[0].Open <= 1 })
		})
	}
}

// A connection that announces a client already carries only that client's
// requests.
func TestLoginsWithTheProxyProtocol(t *testing.T) {
	w, d := newTestbed(t), &domain{challenges: []string{"NTLM"}}
	server := d.serve(w)
	announced := w.raw(nil, func(c net.Conn) {
		r := bufio.NewReader(c)
		if line, err := r.ReadString('\n'); err != nil || !strings.HasPrefix(line, "PROXY TCP4 127.0.0.1 ") {
			t.Errorf("the connection begins with %q, %v", line, err)
			return
		}
		to, err := net.Dial("tcp", server)
		if err != nil {
			t.Error(err)
			return
		}
		var both sync.WaitGroup
		both.Go(func() { _, _ = io.Copy(to, r); to.Close() })
		both.Go(func() { _, _ = io.Copy(c, to); c.Close() })
		both.Wait()
	})
	up := upstream.New(upstream.Options{Name: "up", ConnectTimeout: testTimeout, HandshakeTimeout: testTimeout, ProxyProtocol: proxyproto.V1, Endpoints: []upstream.EndpointOptions{{Network: "tcp", Address: announced}}})
	_, address := w.plain(w.newBack(backs.Options{Upstream: up}))
	alice, bob := w.dial(address), w.dial(address)
	alice.logIn(t, "NTLM", "alice")
	bob.is(t, "")
	alice.is(t, "alice")
}

// A login continues even if its request has a body.
func TestLoginOfAPostSucceeds(t *testing.T) {
	w, d := newTestbed(t), &domain{challenges: []string{"NTLM"}}
	_, address := w.plain(w.back(backs.HTTP1, d.serve(w, "http/1.1")))
	c := w.dial(address)
	for _, step := range []struct{ credentials, want string }{{"NTLM 1", "401"}, {"NTLM 3 alice", "200alice"}} {
		fmt.Fprintf(c, "POST / HTTP/1.1\r\nHost: a\r\nAuthorization: %s\r\nContent-Length: 5\r\n\r\nhello", step.credentials)
		res, body := c.answer(t, "POST")
		if got := fmt.Sprint(res.StatusCode, body); got != step.want {
			t.Errorf("%s: %s", step.credentials, got)
		}
	}
	c.is(t, "alice")
	w.dial(address).is(t, "")
}
