package gateway

import (
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/drawbridge-gateway/drawbridge/certs/certstest"
	"github.com/drawbridge-gateway/drawbridge/certs/pki"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

// httpServer starts an HTTPS server and counts its connections.
func httpServer(t *testing.T, issued *pki.Issued, handler http.HandlerFunc) (address string, connections *atomic.Int64) {
	t.Helper()
	connections = new(atomic.Int64)
	s := httptest.NewUnstartedServer(handler)
	s.TLS = &tls.Config{Certificates: []tls.Certificate{certstest.TLS(t, issued)}, NextProtos: []string{"http/1.1"}}
	s.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			connections.Add(1)
		}
	}
	s.Config.ErrorLog = nil
	s.StartTLS()
	t.Cleanup(s.Close)
	return s.Listener.Addr().String(), connections
}

// bundle returns a trust bundle of the CA, with revocation lists.
func bundle(name string, ca *certstest.CA, lists ...[]byte) *adminv1.TrustBundle {
	b := &adminv1.TrustBundle{Name: name, Source: &adminv1.TrustBundle_Pem{Pem: string(ca.TrustPEM())}}
	for _, l := range lists {
		b.Crls = append(b.Crls, &adminv1.Crl{Source: &adminv1.Crl_Pem{Pem: string(l)}})
	}
	return b
}

// upstreamTo returns an upstream that trusts the bundle "corp".
func upstreamTo(name, address string, r *adminv1.Revalidation) *adminv1.Upstream {
	return &adminv1.Upstream{Name: name, Endpoints: []*adminv1.Endpoint{{Address: address}},
		Transport: &adminv1.Upstream_Tls{Tls: &adminv1.UpstreamTls{TrustBundles: []string{"corp"}, VerifyName: name + ".example", Revalidation: r}}}
}

// A new revocation list that revokes no certificate in use costs no handshake, no
// pooled connection and no counter.
func TestARevocationListIsNoRotation(t *testing.T) {
	g, ca := start(t, ""), certstest.NewCA(t)
	ok := func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "ok") }
	address, connections := httpServer(t, ca.Server(t, "up.example"), ok)
	g.put(bundle("corp", ca, ca.CRL(t)), upstreamTo("up", address, nil), httpListener("http", "127.0.0.1:0"))
	url := "http://" + g.address("http")
	request := func(want int) {
		t.Helper()
		if code, body := get(t, url); code != want {
			t.Fatalf("%d %q", code, body)
		}
	}
	request(200)
	before := g.live.Load()
	for _, revoked := range []*pki.Issued{nil, ca.Client(t, "left")} {
		b := bundle("corp", ca, ca.CRL(t))
		if revoked != nil {
			b = bundle("corp", ca, ca.CRL(t, revoked.Leaf))
		}
		g.put(b)
		request(200)
	}
	other := certstest.NewCA(t)
	b := bundle("corp", ca, ca.CRL(t))
	b.Source = &adminv1.TrustBundle_Pem{Pem: string(ca.TrustPEM()) + string(other.TrustPEM())}
	g.put(b)
	request(200)
	if n := connections.Load(); n != 1 {
		t.Errorf("%d connections", n)
	}
	was, _ := before.Upstream("up")
	is, _ := g.live.Load().Upstream("up")
	e := is.Live.Status()[0]
	if was.Live != is.Live || e.Made != 1 || e.HandshakesFull != 1 || e.Requests != 4 {
		t.Errorf("the same upstream: %v; counted %d connections, %d handshakes, %d requests", was.Live == is.Live, e.Made, e.HandshakesFull, e.Requests)
	}
}

// A connection whose endpoint no longer verifies takes no further request, and the
// others notice nothing.
func TestRevokedEndpointsGetNoFurtherRequest(t *testing.T) {
	g, ca := start(t, ""), certstest.NewCA(t)
	ok := func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "ok") }
	revoked := ca.Server(t, "up.example")
	address, _ := httpServer(t, revoked, ok)
	other, connections := httpServer(t, ca.Server(t, "other.example"), ok)
	toOther := httpListener("other", "127.0.0.1:0")
	toOther.Upstream = "other"
	g.put(bundle("corp", ca, ca.CRL(t)), upstreamTo("up", address, nil), upstreamTo("other", other, nil),
		httpListener("http", "127.0.0.1:0"), toOther)
	for range 3 {
		get(t, "http://"+g.address("http"))
		get(t, "http://"+g.address("other"))
	}
	g.put(bundle("corp", ca, ca.CRL(t, revoked.Leaf)))
	if code, body := get(t, "http://"+g.address("http")); code != 502 {
		t.Errorf("%d %q from a revoked endpoint", code, body)
	}
	if code, _ := get(t, "http://"+g.address("other")); code != 200 || connections.Load() != 1 {
		t.Errorf("the other upstream: %d, %d connections", code, connections.Load())
	}
	eventually(t, "no connection to the revoked endpoint is open", func() bool {
		u, _ := g.live.Load().Upstream("up")
		return u.Live.Status()[0].Open == 0
	})
	u, _ := g.live.Load().Upstream("up")
	if got := u.Tracker.Peers().Counts().Ended; got["REVOKED"] != 1 {
		t.Errorf("ended: %v", got)
	}
	eventually(t, "an event says so", func() bool {
		before, _ := g.EventBounds()
		events, _, err := g.Events(before)
		return err == nil && slices.ContainsFunc(events, func(e *adminv1.Event) bool {
			return e.GetType() == adminv1.EventType_EVENT_TYPE_CONNECTIONS_UNVERIFIED && e.GetName() == "up" &&
				e.GetReason() == adminv1.Reason_REASON_REVOKED && e.GetCount() == 1
		})
	})
}

// A stream continues for its grace and ends with the reason in the log; with
// REPORT it continues, with CLOSE it ends at once.
func TestStreamsToARevokedEndpointEnd(t *testing.T) {
	ca := certstest.NewCA(t)
	for _, c := range []struct {
		name string
		r    *adminv1.Revalidation
		ends bool
	}{
		{"drain", &adminv1.Revalidation{Grace: durationpb.New(500 * time.Millisecond)}, true},
		{"close", &adminv1.Revalidation{Action: adminv1.RevalidationAction_REVALIDATION_ACTION_CLOSE}, true},
		{"report", &adminv1.Revalidation{Action: adminv1.RevalidationAction_REVALIDATION_ACTION_REPORT}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			g := start(t, "")
			revoked := ca.Server(t, "up.example")
			client := ca.Client(t, "client")
			up := upstreamTo("up", echo(t, ca, revoked), c.r)
			up.GetTls().Certificate = "client"
			g.put(bundle("corp", ca, ca.CRL(t)), &adminv1.Certificate{Name: "client", Source: &adminv1.Certificate_Pem{Pem: &adminv1.CertificatePem{
				CertificateChain: string(client.ChainPEM), PrivateKey: string(client.KeyPEM)}}}, up, tcpListener("tcp", "127.0.0.1:0"))
			s := dial(t, g.address("tcp"))
			s.echo(t, "before")
			g.put(bundle("corp", ca, ca.CRL(t, revoked.Leaf)))
			u, _ := g.live.Load().Upstream("up")
			eventually(t, "it is noticed", func() bool {
				counts := u.Tracker.Peers().Counts()
				return counts.Ended["REVOKED"]+counts.Reported["REVOKED"] == 1
			})
			if !c.ends {
				s.echo(t, "after")
				return
			}
			if n, err := s.Read(make([]byte, 1)); err == nil {
				t.Fatalf("read %d bytes", n)
			}
			eventually(t, "the log has the reason", func() bool {
				return strings.Contains(g.log.String(), `"ended":"no longer verified"`) && strings.Contains(g.log.String(), `"reason":"REVOKED"`)
			})
		})
	}
}
