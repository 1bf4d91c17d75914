package gateway

import (
	"bufio"
	"context"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/drawbridge-gateway/drawbridge/certs"
	"github.com/drawbridge-gateway/drawbridge/certs/certstest"
	"github.com/drawbridge-gateway/drawbridge/certs/pki"
	"github.com/drawbridge-gateway/drawbridge/gateway/listeners"
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

// startWithClock runs a gateway whose clock is ahead by an offset in nanoseconds.
func startWithClock(t *testing.T) (*testGateway, *atomic.Int64) {
	t.Helper()
	offset := new(atomic.Int64)
	return start(t, "", func(o *Options) { o.now = func() time.Time { return time.Now().Add(time.Duration(offset.Load())) } }), offset
}

// clientsEnded returns how many clients of all listeners no longer verified for a reason.
func (g *testGateway) clientsEnded(reason certs.Reason) (n uint64) {
	g.listeners.Each(func(r *listeners.Running) { n += r.Peers().Counts().Ended[reason] })
	return n
}

// upstreamTo returns an upstream that trusts the bundle "corp".
func upstreamTo(name, address string, r *adminv1.Revalidation) *adminv1.Upstream {
	return &adminv1.Upstream{Name: name, Endpoints: []*adminv1.Endpoint{{Address: address}},
		Transport: &adminv1.Upstream_Tls{Tls: &adminv1.UpstreamTls{TrustBundles: []string{"corp"}, VerifyName: name + ".example", Revalidation: r}}}
}

// A new revocation list that revokes no certificate in use causes no handshake,
// closes no pooled connection, and resets no counter.
func TestARenewedRevocationListClosesNoConnection(t *testing.T) {
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

// The gateway sends no further request on a connection whose endpoint no longer
// verifies. Other connections are not affected.
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
	_, metrics := get(t, "http://"+g.OpsAddress()+"/metrics")
	if want := `drawbridge_upstream_revalidated{reason="REVOKED",result="ended",upstream="up"} 1`; !strings.Contains(metrics, want+"\n") {
		t.Errorf("/metrics has no %s", want)
	}
	eventually(t, "an event reports the failure", func() bool {
		before, _ := g.EventBounds()
		events, _, err := g.Events(before)
		return err == nil && slices.ContainsFunc(events, func(e *adminv1.Event) bool {
			return e.GetType() == adminv1.EventType_EVENT_TYPE_CONNECTIONS_UNVERIFIED && e.GetName() == "up" &&
				e.GetReason() == adminv1.Reason_REASON_REVOKED && e.GetCount() == 1
		})
	})
}

// A stream continues for its grace period, and the log has the reason for its
// end. With REPORT it does not end, and with CLOSE it ends at once.
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
			g.put(bundle("corp", ca, ca.CRL(t)), inlineCertificate("client", client), up, tcpListener("tcp", "127.0.0.1:0"))
			s := dial(t, g.address("tcp"))
			s.echo(t, "before")
			g.put(bundle("corp", ca, ca.CRL(t, revoked.Leaf)))
			u, _ := g.live.Load().Upstream("up")
			eventually(t, "the failed verification is detected", func() bool {
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

// A tlsClient is a client of a listener: HTTP/1.1, HTTP/2 or a stream.
func tlsClient(t *testing.T, ca *certstest.CA, issued *pki.Issued, protocol string) *http.Client {
	t.Helper()
	config := &tls.Config{RootCAs: ca.Pool(), ServerName: "front.example"}
	if issued != nil {
		config.Certificates = []tls.Certificate{certstest.TLS(t, issued)}
	}
	transport := &http.Transport{TLSClientConfig: config, ForceAttemptHTTP2: protocol == "h2", MaxConnsPerHost: 1}
	if protocol != "h2" {
		config.NextProtos = []string{"http/1.1"}
	}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, Timeout: deadline}
}

// frontTLS returns a certificate and the TLS settings of a listener.
func frontTLS(t *testing.T, ca *certstest.CA, auth adminv1.ClientAuth) (*adminv1.Certificate, *adminv1.ServerTls) {
	t.Helper()
	front := ca.Server(t, "front.example")
	settings := &adminv1.ServerTls{Certificates: []string{"front"}, ClientAuth: auth, Revalidation: &adminv1.Revalidation{Grace: durationpb.New(time.Second)}}
	if auth > adminv1.ClientAuth_CLIENT_AUTH_NONE {
		settings.ClientTrustBundles = []string{"clients"}
	}
	return inlineCertificate("front", front), settings
}

// A request on a connection whose client no longer verifies is never served, and the
// connection ends. Connections of other clients stay.
func TestRevokedClientsGetNoFurtherResponse(t *testing.T) {
	for _, protocol := range []string{"http/1.1", "h2"} {
		t.Run(protocol, func(t *testing.T) {
			g, ca := start(t, ""), certstest.NewCA(t)
			plain := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "ok") }))
			t.Cleanup(plain.Close)
			cert, settings := frontTLS(t, ca, adminv1.ClientAuth_CLIENT_AUTH_REQUIRED)
			l := httpListener("https", "127.0.0.1:0")
			l.Tls = settings
			g.put(bundle("clients", ca, ca.CRL(t)), cert, l, plainUpstream("up", plain.Listener.Addr().String()))
			alice, bob := ca.Client(t, "alice"), ca.Client(t, "bob")
			a, b := tlsClient(t, ca, alice, protocol), tlsClient(t, ca, bob, protocol)
			url := "https://" + g.address("https")
			for _, c := range []*http.Client{a, b} {
				if code := keepConnection(t, c, url); code != 200 {
					t.Fatal(code)
				}
			}
			g.put(bundle("clients", ca, ca.CRL(t, ca.Client(t, "another").Leaf)))
			if code, reused := request(t, a, url); code != 200 || !reused {
				t.Fatalf("a list that revokes a different client: %d, reused: %v", code, reused)
			}
			g.put(bundle("clients", ca, ca.CRL(t, alice.Leaf)))
			// On a new connection the handshake fails.
			if resp, err := a.Get(url); err == nil {
				resp.Body.Close()
				if resp.StatusCode != http.StatusMisdirectedRequest {
					t.Errorf("a revoked client was answered with %d", resp.StatusCode)
				}
			}
			if code, reused := request(t, b, url); code != 200 || !reused {
				t.Errorf("the other client: %d, reused: %v", code, reused)
			}
			eventually(t, "the connection is closed", func() bool { return g.listener("https").GetConnections() == 1 })
		})
	}
}

// request sends a request. It returns the status code, and whether the connection
// was used before.
func request(t *testing.T, c *http.Client, url string) (code int, reused bool) {
	t.Helper()
	code, reused, err := tryRequest(t.Context(), c, url)
	if err != nil {
		t.Fatal(err)
	}
	return code, reused
}

// keepConnection sends a request on a new connection and returns its code, once the
// client keeps the connection for the next request. On a busy machine, the goroutine
// that writes the request may be slow, so that package http closes the connection
// after the response. Then keepConnection tries again.
func keepConnection(t *testing.T, c *http.Client, url string) (code int) {
	t.Helper()
	kept := c.Transport.(*http.Transport).ForceAttemptHTTP2 // HTTP/2 has no such limit
	ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{PutIdleConn: func(err error) { kept = err == nil }})
	for range 20 {
		code, reused, err := tryRequest(ctx, c, url)
		if err != nil || reused {
			t.Fatalf("%v, reused: %v", err, reused)
		}
		if kept {
			return code
		}
	}
	t.Fatal("the client kept no connection")
	return 0
}

func tryRequest(ctx context.Context, c *http.Client, url string) (code int, reused bool, err error) {
	trace := &httptrace.ClientTrace{GotConn: func(info httptrace.GotConnInfo) { reused = info.Reused }}
	r, err := http.NewRequestWithContext(httptrace.WithClientTrace(ctx, trace), http.MethodGet, url, nil)
	if err != nil {
		return 0, false, err
	}
	resp, err := c.Do(r)
	if err != nil {
		return 0, reused, err
	}
	defer resp.Body.Close()
	_, err = io.Copy(io.Discard, resp.Body)
	return resp.StatusCode, reused, err
}

// Connections from before a stricter client-auth policy, including plaintext ones,
// are served no request under the new policy, with any action.
func TestStricterClientAuthEndsOlderConnections(t *testing.T) {
	for _, action := range []adminv1.RevalidationAction{
		adminv1.RevalidationAction_REVALIDATION_ACTION_DRAIN, adminv1.RevalidationAction_REVALIDATION_ACTION_REPORT,
	} {
		t.Run(action.String(), func(t *testing.T) {
			g, ca := start(t, ""), certstest.NewCA(t)
			var served atomic.Int64
			plain := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { served.Add(1) }))
			t.Cleanup(plain.Close)
			cert, settings := frontTLS(t, ca, adminv1.ClientAuth_CLIENT_AUTH_OPTIONAL)
			settings.Revalidation = &adminv1.Revalidation{Action: action}
			l := httpListener("https", "127.0.0.1:0")
			l.Tls = settings
			g.put(bundle("clients", ca), cert, l, plainUpstream("up", plain.Listener.Addr().String()))
			url := "https://" + g.address("https")
			known, unknown := tlsClient(t, ca, ca.Client(t, "known"), "http/1.1"), tlsClient(t, ca, nil, "http/1.1")
			for _, c := range []*http.Client{known, unknown} {
				if code := keepConnection(t, c, url); code != 200 {
					t.Fatal(code)
				}
			}
			before := served.Load()
			strict := proto.Clone(l).(*adminv1.Listener)
			strict.Tls.ClientAuth = adminv1.ClientAuth_CLIENT_AUTH_REQUIRED
			g.put(strict)
			if resp, err := unknown.Get(url); err == nil {
				resp.Body.Close()
				if resp.StatusCode != http.StatusMisdirectedRequest {
					t.Errorf("a client without a certificate was answered with %d", resp.StatusCode)
				}
			}
			if code, reused := request(t, known, url); code != 200 || !reused {
				t.Errorf("a client with a certificate: %d, reused: %v", code, reused)
			}
			if n := served.Load() - before; n != 1 {
				t.Errorf("the upstream got %d requests", n)
			}
		})
	}
}

// The connections of a TCP listener end after the grace period.
func TestStreamsOfARevokedClientEnd(t *testing.T) {
	g, ca := start(t, ""), certstest.NewCA(t)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	serve(t, ln, func(c net.Conn) { io.Copy(c, c) })
	cert, settings := frontTLS(t, ca, adminv1.ClientAuth_CLIENT_AUTH_REQUIRED)
	l, patient := tcpListener("tls", "127.0.0.1:0"), tcpListener("patient", "127.0.0.1:0")
	l.Tls, patient.Tls = settings, proto.CloneOf(settings)
	patient.Tls.Revalidation.Grace = durationpb.New(time.Hour)
	g.put(bundle("clients", ca, ca.CRL(t)), cert, l, patient, plainUpstream("up", ln.Addr().String()))
	alice, bob := ca.Client(t, "alice"), ca.Client(t, "bob")
	connect := func(issued *pki.Issued, listener string) *stream {
		c := dial(t, g.address(listener))
		tc := tls.Client(c.Conn, &tls.Config{RootCAs: ca.Pool(), ServerName: "front.example", Certificates: []tls.Certificate{certstest.TLS(t, issued)}})
		s := &stream{tc, bufio.NewReader(tc)}
		s.echo(t, "hello")
		return s
	}
	a, b, graced := connect(alice, "tls"), connect(bob, "tls"), connect(alice, "patient")
	g.put(bundle("clients", ca, ca.CRL(t, alice.Leaf)))
	eventually(t, "both connections are found", func() bool { return g.clientsEnded(certs.ReasonRevoked) == 2 })
	graced.echo(t, "within the grace")
	graced.Close()
	if n, err := a.Read(make([]byte, 1)); err == nil {
		t.Fatalf("read %d bytes", n)
	}
	b.echo(t, "unaffected")
	_, metrics := get(t, "http://"+g.OpsAddress()+"/metrics")
	if want := `drawbridge_bridge_revalidated{listener="tls",reason="REVOKED",result="ended"} 1`; !strings.Contains(metrics, want+"\n") {
		t.Errorf("/metrics has no %s", want)
	}
	eventually(t, "the log has the reason", func() bool {
		return strings.Contains(g.log.String(), `"ended":"no longer verified"`) && strings.Contains(g.log.String(), `"reason":"REVOKED"`)
	})
	eventually(t, "an event reports the failure", func() bool {
		before, _ := g.EventBounds()
		events, _, err := g.Events(before)
		return err == nil && slices.ContainsFunc(events, func(e *adminv1.Event) bool {
			return e.GetType() == adminv1.EventType_EVENT_TYPE_CONNECTIONS_UNVERIFIED && e.GetKind() == adminv1.Kind_KIND_LISTENER && e.GetName() == "tls"
		})
	})
}

// Clients keep their sessions when the revocation list changes: their tickets are
// accepted, but checked against the new list.
func TestTicketsOutliveARevocationList(t *testing.T) {
	g, ca := start(t, ""), certstest.NewCA(t)
	cert, settings := frontTLS(t, ca, adminv1.ClientAuth_CLIENT_AUTH_REQUIRED)
	l := httpListener("https", "127.0.0.1:0")
	l.Tls = settings
	g.put(bundle("clients", ca, ca.CRL(t)), cert, l, plainUpstream("up", "127.0.0.1:1"))
	alice := ca.Client(t, "alice")
	config := &tls.Config{RootCAs: ca.Pool(), ServerName: "front.example", Certificates: []tls.Certificate{certstest.TLS(t, alice)}, ClientSessionCache: tls.NewLRUClientSessionCache(1)}
	shake := func() (resumed bool, err error) {
		c, err := tls.Dial("tcp", g.address("https"), config)
		if err != nil {
			return false, err
		}
		defer c.Close()
		c.SetDeadline(time.Now().Add(deadline))
		io.WriteString(c, "GET / HTTP/1.1\r\nHost: front.example\r\nConnection: close\r\n\r\n")
		_, err = c.Read(make([]byte, 1)) // reads the ticket, or the alert
		return c.ConnectionState().DidResume, err
	}
	if resumed, err := shake(); resumed || err != nil {
		t.Fatal(resumed, err)
	}
	g.put(bundle("clients", ca, ca.CRL(t, ca.Client(t, "another").Leaf)))
	if resumed, err := shake(); !resumed || err != nil {
		t.Errorf("resumed: %v, %v", resumed, err)
	}
	g.put(bundle("clients", ca, ca.CRL(t, alice.Leaf)))
	if _, err := shake(); err == nil {
		t.Error("a revoked client resumed its session")
	}
}
