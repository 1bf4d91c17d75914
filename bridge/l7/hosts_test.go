package l7

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/hashicorp/go-hclog"

	"github.com/drawbridge-gateway/drawbridge/bridge/l7/backs"
	"github.com/drawbridge-gateway/drawbridge/bridge/upstream"
	"github.com/drawbridge-gateway/drawbridge/certs"
	"github.com/drawbridge-gateway/drawbridge/certs/certstest"
)

// fromHost returns a Back that takes the server name from the request's host,
// and the address of its upstream. The upstream's certificate is valid for
// a.test, b.test and 127.0.0.1.
func (w *testbed) fromHost(p backs.Protocol, seen func(tls.ConnectionState)) *backs.Pools {
	ln := listen(w)
	config := w.serverTLS("h2", "http/1.1")
	config.Certificates = []tls.Certificate{certstest.TLS(w, w.ca.Server(w, "a.test", "b.test", "127.0.0.1"))}
	config.VerifyConnection = func(s tls.ConnectionState) error {
		if seen != nil {
			seen(s)
		}
		return nil
	}
	srv := &http.Server{ErrorLog: w.logger(hclog.Trace).StandardLogger(nil), Handler: http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		fmt.Fprint(rw, r.Host, " ", r.TLS.ServerName, " ", r.RemoteAddr)
	})}
	done := make(chan struct{})
	go func() { defer close(done); _ = srv.Serve(tls.NewListener(ln, config)) }()
	w.Cleanup(func() { srv.Close(); <-done })

	client := func(protos ...string) *certs.Client {
		c, err := certs.NewClient(certs.ClientOptions{
			FromHost: true, Certificate: certstest.Certificate(w, w.ca.Client(w, "gateway")),
			Trust: []*certs.TrustBundle{w.ca.Trust(w)}, NextProtos: protos,
		})
		if err != nil {
			w.Fatal(err)
		}
		return c
	}
	protos := map[backs.Protocol][]string{backs.Auto: {"h2", "http/1.1"}, backs.HTTP1: {"http/1.1"}, backs.HTTP2: {"h2"}}[p]
	return w.newBack(backs.Options{Protocol: p, TLS: true, Upstream: upstream.New(upstream.Options{
		Name: "up", ConnectTimeout: testTimeout, HandshakeTimeout: testTimeout, Logger: w.logger(hclog.Warn),
		Endpoints: []upstream.EndpointOptions{{Network: "tcp", Address: ln.Addr().String(), Stream: client(), HTTP: client(protos...)}},
	})})
}

// ask sends a request for a host to the gateway.
func (w *testbed) ask(address, host string, upgrade bool) (code int, answer []string) {
	w.Helper()
	c := w.dial(address)
	defer c.Close()
	lines := []string{"GET / HTTP/1.1", "Host: " + host}
	if upgrade {
		lines = append(lines, "Connection: Upgrade", "Upgrade: websocket")
	}
	c.send(lines...)
	res, body := c.answer(w, "GET")
	return res.StatusCode, strings.Fields(body)
}

// status sends a request for a host on a connection, and returns the status of
// the response.
func (w *testbed) status(conn net.Conn, host string) string {
	w.Helper()
	c := &rawConn{conn, bufio.NewReader(conn)}
	c.send("GET / HTTP/1.1", "Host: "+host)
	res, _ := c.answer(w, "GET")
	return fmt.Sprint(res.StatusCode)
}

func TestServerNameFromTheRequestsHost(t *testing.T) {
	protocols(t, func(t *testing.T, w *testbed, p backs.Protocol) {
		var mu sync.Mutex
		resumed := map[string][]bool{}
		back := w.fromHost(p, func(s tls.ConnectionState) {
			mu.Lock()
			defer mu.Unlock()
			resumed[s.ServerName] = append(resumed[s.ServerName], s.DidResume)
		})
		_, address := w.plain(back)
		conns := map[string]string{} // connections by server name
		for _, step := range []struct{ host, name string }{
			{"a.test", "a.test"}, {"b.test", "b.test"}, {"A.Test.:8443", "a.test"}, {"b.test", "b.test"}, {"127.0.0.1:80", ""}, {"a.test", "a.test"},
		} {
			code, got := w.ask(address, step.host, false)
			if want := step.name; code != 200 || len(got) != 3 && want != "" || want != "" && got[1] != want {
				t.Fatalf("%s: %d %q, want the name %q", step.host, code, got, want)
			}
			conn := got[len(got)-1]
			if kept, ok := conns[step.name]; ok && kept != conn {
				t.Errorf("%s: a new connection, although there was one for the host", step.host)
			}
			for name, kept := range conns {
				if name != step.name && kept == conn {
					t.Errorf("%s: the connection for %s", step.host, name)
				}
			}
			conns[step.name] = conn
		}
		// The three connections above, and the connections of upgrades, which HTTP/2
		// does not have.
		for range 2 {
			for _, name := range []string{"a.test", "b.test"} {
				if p == backs.HTTP2 {
					break
				}
				if code, got := w.ask(address, name, true); code != 200 || got[1] != name {
					t.Errorf("upgrade: %d %q", code, got)
				}
			}
		}
		mu.Lock()
		defer mu.Unlock()
		for _, name := range []string{"a.test", "b.test"} {
			// Only HTTP/1.1 uses the same settings for requests and upgrades.
			want := map[backs.Protocol][]bool{backs.HTTP1: {false, true, true}, backs.Auto: {false, false, true}, backs.HTTP2: {false}}[p]
			if !slices.Equal(resumed[name], want) {
				t.Errorf("%s: resumed %v, want %v", name, resumed[name], want)
			}
		}
		if !slices.Equal(resumed[""], []bool{false}) {
			t.Errorf("by address: resumed %v", resumed[""])
		}
	})
}

func TestHostMismatchWithUpstreamIsRefused(t *testing.T) {
	protocols(t, func(t *testing.T, w *testbed, p backs.Protocol) {
		back := w.fromHost(p, nil)
		_, address := w.plain(back)
		if code, _ := w.ask(address, "a.test", false); code != 200 {
			t.Fatal(code)
		}
		for range 3 {
			if code, got := w.ask(address, "evil.test", false); code != 502 {
				t.Errorf("%d %q", code, got)
			}
		}
		s := back.Upstream().Status()[0]
		if s.Failures[certs.ReasonNameMismatch] != 3 || s.Health != upstream.Up {
			t.Errorf("%+v", s)
		}
		eventually(t, "only the connection of a.test is kept", func() bool {
			return back.Kept(back.Upstream().Endpoints()[0]) == 1
		})
	})
}

// A listener that rejects unknown names rejects them in Host too, in every spelling,
// so that no host is reached over another host's handshake.
func TestHostsTheListenerDoesNotKnowAreMisdirected(t *testing.T) {
	w := newTestbed(t)
	back := w.back(backs.Auto, w.server(echo))
	server := func(reject bool) *certs.Servers {
		s, err := certs.NewServer(certs.ServerOptions{
			Certificates: []*certs.Certificate{
				certstest.Certificate(w, w.ca.Server(w, "localhost", "127.0.0.1")),
				certstest.Certificate(w, w.ca.Server(w, "*.wild.test", "xn--bcher-kva.test")),
			},
			RejectUnknownSNI: reject,
			NextProtos:       []string{"h2", "http/1.1"},
		})
		if err != nil {
			t.Fatal(err)
		}
		return certs.NewServers(s)
	}
	table := &Table{TLS: server(true), Default: to(back)}
	_, strict := w.gateway(fixed(table))
	_, lenient := w.gateway(fixed(&Table{TLS: server(false), Default: to(back)}))
	_, plain := w.gateway(fixed(&Table{Default: to(back)}))
	for _, c := range []struct {
		host string
		code string
	}{
		{"localhost", "200"},
		{"LOCALHOST.:443", "200"},
		{"127.0.0.1:443", "200"},
		{"a.wild.test", "200"},
		{"A.Wild.Test.", "200"},
		{"xn--bcher-kva.test", "200"},
		{"a.b.wild.test", "421"},
		{"wild.test", "421"},
		{"other.test", "421"},
		{"OTHER.test.:443", "421"},
		{"127.0.0.2", "421"},
		{"[::1]", "421"},
	} {
		for _, proto := range []string{"HTTP/1.1", "HTTP/2"} {
			spoken := func(address string) string {
				if proto == "HTTP/2" {
					return ask(t, w, address, ":method: GET", ":scheme: https", ":path: /", ":authority: "+c.host)
				}
				conn, err := tls.Dial("tcp", address, &tls.Config{RootCAs: w.ca.Pool(), ServerName: "localhost", NextProtos: []string{"http/1.1"}})
				if err != nil {
					t.Fatal(err)
				}
				defer conn.Close()
				return w.status(conn, c.host)
			}
			if got := spoken(strict); got != c.code {
				t.Errorf("%s for %s: %s, want %s", proto, c.host, got, c.code)
			}
			if got := spoken(lenient); got != "200" {
				t.Errorf("%s for %s where unknown names are admitted: %s", proto, c.host, got)
			}
		}
		if code, _ := w.ask(plain, c.host, false); code != 200 {
			t.Errorf("plaintext for %s: %d", c.host, code)
		}
	}
}
