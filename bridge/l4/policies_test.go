package l4_test

import (
	"crypto/tls"
	"testing"
	"time"

	"github.com/drawbridge-gateway/drawbridge/bridge/l4"
	"github.com/drawbridge-gateway/drawbridge/bridge/route"
	"github.com/drawbridge-gateway/drawbridge/certs"
	"github.com/drawbridge-gateway/drawbridge/certs/certstest"
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
		evasive := p.client("mtls.test:443") // whose host, as routes read it, is mtls.test
		evasive.InsecureSkipVerify = true
		for what, config := range map[string]*tls.Config{"no certificate": without, "an SNI with a port": evasive} {
			c := g.dial(t, config)
			_ = c.Raw.SetDeadline(time.Now().Add(10 * time.Second))
			_, _ = c.Write([]byte("hello")) // the reset may come first
			if got, how := c.ReadAll(); len(got) > 0 || how == clean {
				t.Errorf("a client with %s got %q and a %s end", what, got, how)
			}
		}
	}
}
