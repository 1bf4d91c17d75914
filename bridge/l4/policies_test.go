package l4_test

import (
	"crypto/tls"
	"net"
	"testing"
	"time"

	"github.com/drawbridge-gateway/drawbridge/bridge/l4"
	"github.com/drawbridge-gateway/drawbridge/bridge/route"
	"github.com/drawbridge-gateway/drawbridge/certs"
	"github.com/drawbridge-gateway/drawbridge/certs/certstest"
	pkiissue "github.com/drawbridge-gateway/drawbridge/certs/pki"
)

// strict returns TLS whose policy for mtls.test, a host of 9 bytes, needs a client
// certificate.
func (p pki) strict(t *testing.T) *certs.Servers {
	server := func(o certs.ServerOptions, name string) *certs.Server {
		o.Certificates = []*certs.Certificate{certstest.Certificate(t, p.ca.Server(t, name))}
		s, err := certs.NewServer(o)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	return certs.NewServers(server(certs.ServerOptions{}, "open.test"), certs.Policy{
		Hosts:  []string{"mtls.test"},
		Server: server(certs.ServerOptions{ClientAuth: certs.ClientAuthRequired, ClientTrust: []*certs.TrustBundle{p.ca.Trust(t)}}, "mtls.test"),
	})
}

// The SNI chooses both the policy and the route, and no SNI chooses the route of one
// host with the policy of another.
func TestPolicyAndRouteBelongToOneHost(t *testing.T) {
	p := newPKI(t)
	for _, peek := range []bool{false, true} {
		secret, open := listen(t, "tcp"), listen(t, "tcp")
		echo(t, secret, nil)
		echo(t, open, nil)
		routes, err := route.New([]route.Rule[*l4.Target]{
			{Name: "secret", Hosts: []string{"mtls.test"}, Value: to(group(plain(secret)))}, {Name: "open", Hosts: []string{"open.test"}, Value: to(group(plain(open)))},
		})
		if err != nil {
			t.Fatal(err)
		}
		g := serve(t, &l4.Table{TLS: p.strict(t), Routes: routes, Peek: peek})
		g.dial(t, p.client("open.test")).WantEcho(t, "hello")
		withCertificate := p.client("mtls.test")
		withCertificate.Certificates = []tls.Certificate{certstest.TLS(t, p.ca.Client(t, "alice"))}
		g.dial(t, withCertificate).WantEcho(t, "hello")

		without := p.client("mtls.test")
		evasive := p.client("mtls.test:443") // routes read this name as the host mtls.test
		evasive.InsecureSkipVerify = true
		for what, config := range map[string]*tls.Config{"no certificate": without, "an SNI with a port": evasive} {
			c := g.dial(t, config)
			_ = c.Raw.SetDeadline(time.Now().Add(time.Minute))
			_, _ = c.Write([]byte("hello")) // the reset may arrive first
			if got, how := c.ReadAll(); len(got) > 0 || how == clean {
				t.Errorf("a client with %s got %q and a %s end", what, got, how)
			}
		}
	}
}

// A route with a condition on the client's certificate serves only clients whose
// certificate was verified and meets it.
func TestRouteByClientIdentity(t *testing.T) {
	p := newPKI(t)
	alices, others := listen(t, "tcp"), listen(t, "tcp")
	server := func(ln net.Listener, greeting string) {
		go func() {
			for {
				c, err := ln.Accept()
				if err != nil {
					return
				}
				_, _ = c.Write([]byte(greeting))
				c.Close()
			}
		}()
	}
	server(alices, "alice's")
	server(others, "others'")
	routes, err := route.New([]route.Rule[*l4.Target]{{Name: "alice", Client: &route.Identity{SANs: []string{"spiffe://corp/*/alice"}}, Value: to(group(plain(alices)))}})
	if err != nil {
		t.Fatal(err)
	}
	s, err := certs.NewServer(certs.ServerOptions{
		Certificates: []*certs.Certificate{certstest.Certificate(t, p.ca.Server(t, "gate.test"))},
		ClientAuth:   certs.ClientAuthOptional, ClientTrust: []*certs.TrustBundle{p.ca.Trust(t)},
	})
	if err != nil {
		t.Fatal(err)
	}
	g := serve(t, &l4.Table{TLS: certs.NewServers(s), Routes: routes, Default: to(group(plain(others)))})
	client := func(uri string) *tls.Config {
		config := p.client("gate.test")
		config.ClientSessionCache = tls.NewLRUClientSessionCache(1)
		if uri != "" {
			config.Certificates = []tls.Certificate{certstest.TLS(t, p.ca.Leaf(t, pkiissue.LeafOptions{Usage: pkiissue.Client, URIs: []string{uri}}))}
		}
		return config
	}
	for uri, want := range map[string]string{"spiffe://corp/staff/alice": "alice's", "spiffe://corp/staff/bob": "others'", "": "others'"} {
		config := client(uri)
		for range 2 { // the second connection resumes the session
			if got, how := g.dial(t, config).ReadAll(); string(got) != want || how != clean {
				t.Errorf("a client with %q got %q and a %s end, want %q", uri, got, how, want)
			}
		}
	}
}
