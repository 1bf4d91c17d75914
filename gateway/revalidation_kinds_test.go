package gateway

import (
	"io"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/drawbridge-gateway/drawbridge/certs/certstest"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

// Warm connections whose endpoint no longer verifies are closed at once, and no client gets
// one. Those of another upstream stay.
func TestWarmConnectionsToARevokedEndpointAreClosed(t *testing.T) {
	g, ca := start(t, ""), certstest.NewCA(t)
	client, revoked := ca.Client(t, "client"), ca.Server(t, "up.example")
	server, other := newCountingServer(t, ca, revoked), newCountingServer(t, ca, ca.Server(t, "other.example"))
	warm := func(name, address string) *adminv1.Upstream {
		u := upstreamTo(name, address, nil)
		u.GetTls().Certificate, u.Pool = "client", &adminv1.Pool{Warm: 3}
		return u
	}
	g.put(bundle("corp", ca, ca.CRL(t)), warm("up", server.address), warm("other", other.address), tcpListener("tcp", "127.0.0.1:0"),
		&adminv1.Certificate{Name: "client", Source: &adminv1.Certificate_Pem{Pem: &adminv1.CertificatePem{CertificateChain: string(client.ChainPEM), PrivateKey: string(client.KeyPEM)}}})
	for _, name := range []string{"up", "other"} {
		eventually(t, name+" has warm connections", func() bool { return g.warm(name).GetReady() == 3 })
	}
	g.put(bundle("corp", ca, ca.CRL(t, revoked.Leaf)))
	s := dial(t, g.address("tcp"))
	io.WriteString(s, "line\n")
	if line, err := s.r.ReadString('\n'); err == nil {
		t.Errorf("a client got a connection to a revoked endpoint, which said %q", line)
	}
	eventually(t, "the warm connections are closed", func() bool {
		names, _ := server.connections()
		return names == "" && g.warm("up").GetReady() == 0
	})
	if names, ever := other.connections(); names != "client client client" || ever != 3 || g.warm("other").GetReady() != 3 {
		t.Errorf("the other upstream: connected %q, %d ever, %v", names, ever, g.warm("other"))
	}
}

// With REPORT a client that no longer verifies keeps its connection, but matches no route
// by its identity.
func TestAReportedClientHasNoIdentity(t *testing.T) {
	for _, protocol := range []string{"http/1.1", "h2"} {
		t.Run(protocol, func(t *testing.T) {
			g, ca := start(t, ""), certstest.NewCA(t)
			plain := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
			t.Cleanup(plain.Close)
			cert, settings := frontTLS(t, ca, adminv1.ClientAuth_CLIENT_AUTH_REQUIRED)
			settings.Revalidation = &adminv1.Revalidation{Action: adminv1.RevalidationAction_REVALIDATION_ACTION_REPORT}
			l := httpListener("https", "127.0.0.1:0")
			l.Tls = settings
			known := int32(299)
			alice, bob := ca.Client(t, "alice"), ca.Client(t, "bob")
			g.put(bundle("clients", ca, ca.CRL(t)), cert, l, &adminv1.Upstream{Name: "up",
				Endpoints: []*adminv1.Endpoint{{Address: plain.Listener.Addr().String()}}, Transport: &adminv1.Upstream_Plaintext{Plaintext: &adminv1.Plaintext{}}},
				&adminv1.Route{Name: "known", Listeners: []string{"https"},
					Match:  &adminv1.RouteMatch{ClientIdentity: &adminv1.ClientIdentityMatch{Issuer: ca.Certificate().Subject.String()}},
					Action: &adminv1.Route_Respond{Respond: &adminv1.Respond{Code: &known}}})
			a, b := tlsClient(t, ca, alice, protocol), tlsClient(t, ca, bob, protocol)
			url := "https://" + g.address("https")
			for _, c := range []*http.Client{a, b} {
				if code, _ := request(t, c, url); code != 299 {
					t.Fatalf("a client that verifies got %d", code)
				}
			}
			g.put(bundle("clients", ca, ca.CRL(t, alice.Leaf)))
			if code, reused := request(t, a, url); code != 200 || !reused {
				t.Errorf("the client that no longer verifies: %d, reused: %v", code, reused)
			}
			if code, reused := request(t, b, url); code != 299 || !reused {
				t.Errorf("the other client: %d, reused: %v", code, reused)
			}
		})
	}
}
