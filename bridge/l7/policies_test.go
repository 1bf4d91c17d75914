package l7

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"testing"

	"github.com/drawbridge-gateway/drawbridge/bridge/l7/backs"
	"github.com/drawbridge-gateway/drawbridge/bridge/route"
	"github.com/drawbridge-gateway/drawbridge/certs"
	"github.com/drawbridge-gateway/drawbridge/certs/certstest"
	"github.com/drawbridge-gateway/drawbridge/certs/pki"
)

// policies returns the TLS of a listener with three policies: one for mtls.test and
// *.mtls.test, which need a client certificate, one for other.test, which does not, and
// the base.
func (w *testbed) policies() *certs.Servers {
	server := func(auth certs.ClientAuth, names ...string) *certs.Server {
		o := certs.ServerOptions{
			Certificates: []*certs.Certificate{certstest.Certificate(w, w.ca.Server(w, names...))},
			NextProtos:   []string{"h2", "http/1.1"}, ClientAuth: auth,
		}
		if auth != certs.ClientAuthNone {
			o.ClientTrust = []*certs.TrustBundle{w.ca.Trust(w)}
		}
		s, err := certs.NewServer(o)
		if err != nil {
			w.Fatal(err)
		}
		return s
	}
	return certs.NewServers(server(certs.ClientAuthNone, "open.test", "localhost", "127.0.0.1"),
		certs.Policy{Hosts: []string{"mtls.test", "*.mtls.test", "xn--mtls-gra.test"}, Server: server(certs.ClientAuthRequired, "mtls.test", "*.mtls.test")},
		certs.Policy{Hosts: []string{"other.test"}, Server: server(certs.ClientAuthNone, "other.test")})
}

// A connection never carries a request for a host with a different TLS policy, in any
// spelling of the host.
func TestRequestsForHostsOfOtherPoliciesAreMisdirected(t *testing.T) {
	w := newTestbed(t)
	_, address := w.gateway(fixed(&Table{TLS: w.policies(), Default: to(w.back(backs.Auto, w.server(echo)))}))
	connect := func(sni, proto string) *tls.Conn {
		config := &tls.Config{RootCAs: w.ca.Pool(), ServerName: sni, NextProtos: []string{proto}}
		if sni == "" {
			config.ServerName = "127.0.0.1" // TLS never sends an IP address as SNI
		}
		if sni == "mtls.test" {
			config.Certificates = []tls.Certificate{certstest.TLS(t, w.ca.Client(t, "alice"))}
		}
		conn, err := tls.Dial("tcp", address, config)
		if err != nil {
			t.Fatal(err)
		}
		return conn
	}
	mtls := []string{
		"mtls.test", "MTLS.test", "mtls.test.", "mtls.test:443", "MtLs.TeSt.:8443", "mtls.test:", "a.mtls.test", "A.MTLS.TEST.", "a.mtls.test:443", "xn--mtls-gra.test", "XN--MTLS-GRA.test.",
	}
	base := []string{"open.test", "OPEN.test.:443", "localhost", "127.0.0.1:443", "[::1]", "a.b.mtls.test", "elsewhere.test", "other.test.elsewhere.test"}
	other := []string{"other.test", "OTHER.TEST.", "other.test:1"}
	for sni, own := range map[string][]string{"open.test": base, "": base, "mtls.test": mtls, "other.test": other} {
		allowed := map[string]bool{}
		for _, host := range own {
			allowed[host] = true
		}
		for _, hosts := range [][]string{base, mtls, other} {
			for _, host := range hosts {
				want := "421"
				if allowed[host] {
					want = "200"
				}
				h1 := connect(sni, "http/1.1")
				if got := w.status(h1, host); got != want {
					t.Errorf("HTTP/1.1, SNI %q, host %q: %s, want %s", sni, host, got, want)
				}
				h1.Close()
				h2 := connect(sni, "h2")
				if got := askOn(t, h2, ":method: GET", ":scheme: https", ":path: /", ":authority: "+host); got != want {
					t.Errorf("HTTP/2, SNI %q, host %q: %s, want %s", sni, host, got, want)
				}
				h2.Close()
			}
		}
	}
}

// Each request of a connection is checked separately.
func TestMisdirectedRequestsLeaveTheConnectionToOthers(t *testing.T) {
	w := newTestbed(t)
	_, address := w.gateway(fixed(&Table{TLS: w.policies(), Default: to(w.back(backs.Auto, w.server(echo)))}))
	conn, err := tls.Dial("tcp", address, &tls.Config{RootCAs: w.ca.Pool(), ServerName: "open.test", NextProtos: []string{"http/1.1"}})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	c := &rawConn{conn, bufio.NewReader(conn)}
	for _, step := range []struct{ target, host, code string }{
		{"/", "open.test", "200"}, {"/", "mtls.test", "421"}, {"/", "localhost", "200"},
		{"https://MTLS.test:443/", "MTLS.test:443", "421"}, // the absolute form
		{"/", "open.test", "200"},
	} {
		c.send("GET "+step.target+" HTTP/1.1", "Host: "+step.host)
		res, _ := c.answer(w, "GET")
		if got := fmt.Sprint(res.StatusCode); got != step.code {
			t.Errorf("GET %s, host %s: %s, want %s", step.target, step.host, got, step.code)
		}
	}
}

// A route with a condition on the client's certificate serves only clients whose
// certificate was verified and meets it.
func TestRouteByClientIdentity(t *testing.T) {
	w := newTestbed(t)
	table := &Table{TLS: w.askingTLS(), Default: &Action{Respond: &Respond{Body: "others"}}, Routes: w.routes(
		route.Rule[*Action]{Name: "staff", Client: &route.Identity{SANs: []string{"spiffe://corp/staff/*"}}, Value: &Action{Route: "staff", Respond: &Respond{Body: "staff"}}},
		route.Rule[*Action]{Name: "alice", Client: &route.Identity{SANs: []string{"spiffe://corp/staff/alice"}}, Value: &Action{Route: "alice", Respond: &Respond{Body: "alice"}}},
		// A longer path wins over any identity.
		route.Rule[*Action]{Name: "open", Path: route.Path{Kind: route.PathPrefix, Value: "/open"}, Value: &Action{Route: "open", Respond: &Respond{Body: "open"}}},
	)}
	_, address := w.gateway(fixed(table))
	for _, h2 := range []bool{false, true} {
		for uri, want := range map[string]string{"spiffe://corp/staff/alice": "alice", "spiffe://corp/staff/bob": "staff", "spiffe://corp/guests/alice": "others", "": "others"} {
			var issued *pki.Issued
			if uri != "" {
				issued = w.ca.Leaf(t, pki.LeafOptions{Usage: pki.Client, URIs: []string{uri}})
			}
			c := w.clientWith(issued, h2)
			for range 2 {
				if code, body := w.get(c, "https://"+address+"/"); code != 200 || body != want {
					t.Errorf("HTTP/2 %v, %q: %d %q, want %q", h2, uri, code, body, want)
				}
				if _, body := w.get(c, "https://"+address+"/open"); body != "open" {
					t.Errorf("HTTP/2 %v, %q: /open is %q", h2, uri, body)
				}
				c.CloseIdleConnections() // makes the next connection resume the session
			}
		}
	}
}
