package gateway

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/drawbridge-gateway/drawbridge/certs"
	"github.com/drawbridge-gateway/drawbridge/certs/certstest"
	"github.com/drawbridge-gateway/drawbridge/certs/pki"
	"github.com/drawbridge-gateway/drawbridge/gateway/store"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

// Warm connections whose endpoint no longer verifies are closed at once, and no client
// gets one. Warm connections of another upstream stay.
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
		inlineCertificate("client", client))
	for _, name := range []string{"up", "other"} {
		eventually(t, name+" has warm connections", func() bool { return g.warm(name).GetReady() == 3 })
	}
	g.put(bundle("corp", ca, ca.CRL(t, revoked.Leaf)))
	if c, err := net.Dial("tcp", g.address("tcp")); err == nil { // the gateway may reset the connection before Dial returns
		defer c.Close()
		c.SetDeadline(time.Now().Add(deadline))
		io.WriteString(c, "line\n")
		if line, err := bufio.NewReader(c).ReadString('\n'); err == nil {
			t.Errorf("a client got a connection to a revoked endpoint, which said %q", line)
		}
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
			g.put(bundle("clients", ca, ca.CRL(t)), cert, l, plainUpstream("up", plain.Listener.Addr().String()),
				&adminv1.Route{Name: "known", Listeners: []string{"https"},
					Match:  &adminv1.RouteMatch{ClientIdentity: &adminv1.ClientIdentityMatch{Issuer: ca.Certificate().Subject.String()}},
					Action: &adminv1.Route_Respond{Respond: &adminv1.Respond{Code: &known}}})
			a, b := tlsClient(t, ca, alice, protocol), tlsClient(t, ca, bob, protocol)
			url := "https://" + g.address("https")
			for _, c := range []*http.Client{a, b} {
				if code := keepConnection(t, c, url); code != 299 {
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

// A stream ends, perhaps a little early, at the maximum age of its client connection or
// of its upstream connection. Streams without a limit stay.
func TestStreamsEndAtTheirMaximumAge(t *testing.T) {
	g, ca := start(t, ""), certstest.NewCA(t)
	client := ca.Client(t, "client")
	address := echo(t, ca, ca.Server(t, "up.example"))
	up := func(name string, warm int32, age *durationpb.Duration) *adminv1.Upstream {
		u := upstreamTo(name, address, nil)
		u.GetTls().Certificate, u.GetTls().VerifyName = "client", "up.example"
		u.Tcp, u.Pool = &adminv1.UpstreamTcp{MaxConnectionAge: age}, &adminv1.Pool{Warm: warm}
		return u
	}
	to := func(upstream string, age *durationpb.Duration) *adminv1.Listener {
		l := tcpListener("to-"+upstream, "127.0.0.1:0")
		l.Upstream, l.Tcp = upstream, &adminv1.TcpOptions{MaxConnectionAge: age}
		return l
	}
	second, hour := durationpb.New(time.Second), durationpb.New(time.Hour)
	g.put(bundle("corp", ca), inlineCertificate("client", client),
		up("plain", 0, nil), to("plain", nil), up("client", 0, hour), to("client", second), up("server", 0, second), to("server", hour), up("warm", 2, second), to("warm", nil))
	eventually(t, "there are warm connections", func() bool { return g.warm("warm").GetReady() == 2 })
	unlimited := dial(t, g.address("to-plain"))
	unlimited.echo(t, "young")
	for _, name := range []string{"client", "server", "warm"} {
		var begun time.Time
		var s *stream
		for used := false; !used; { // on a busy machine, the age may pass before the first use
			begun = time.Now()
			s = dial(t, g.address("to-"+name))
			_, err := io.WriteString(s, "young\n")
			if err == nil {
				_, err = s.r.ReadString('\n')
			}
			if used = err == nil; !used && time.Since(begun) < 900*time.Millisecond {
				t.Fatalf("%s: %v", name, err)
			}
		}
		if n, err := s.Read(make([]byte, 1)); err == nil {
			t.Fatalf("%s: read %d bytes", name, n)
		}
		if took := time.Since(begun); took < 900*time.Millisecond {
			t.Errorf("%s: it ended after %v", name, took)
		}
		eventually(t, name+": the log says why", func() bool {
			return strings.Contains(grep(g.log.String(), `"ended":"max age"`), `"listener":"to-`+name+`"`)
		})
	}
	unlimited.echo(t, "old")
}

// A connection ends when the gateway's certificate that its client accepted
// expires.
func TestConnectionsEndWithTheListenersCertificate(t *testing.T) {
	g, offset := startWithClock(t)
	ca := certstest.NewCA(t)
	streamTo, httpTo := lines(t)
	all := []store.Resource{plainUpstream("streams", streamTo), plainUpstream("requests", httpTo)}
	for name, lasts := range map[string]time.Duration{"short": time.Hour, "long": 10 * time.Hour} {
		issued := ca.Leaf(t, pki.LeafOptions{DNSNames: []string{"front.example"}, Usage: pki.Server, NotAfter: time.Now().Add(lasts)})
		settings := &adminv1.ServerTls{Certificates: []string{name}, Revalidation: &adminv1.Revalidation{Grace: durationpb.New(300 * time.Millisecond)}}
		streams, requests := tcpListener(name+"-tcp", "127.0.0.1:0"), httpListener(name+"-http", "127.0.0.1:0")
		streams.Upstream, streams.Tls, requests.Upstream, requests.Tls = "streams", settings, "requests", settings
		all = append(all, streams, requests, inlineCertificate(name, issued))
	}
	g.put(all...)
	live := map[string][]liveClient{}
	for _, name := range []string{"short", "long"} {
		var err error
		if live[name], err = (&manyKinds{t, ca, g.address(name + "-tcp"), g.address(name + "-http")}).dial(nil); err != nil {
			t.Fatal(err)
		}
	}
	offset.Store(int64(2 * time.Hour))
	eventually(t, "the failed connections are detected", func() bool {
		return g.clientsEnded(certs.ReasonOwnCertificateExpired) == uint64(len(live["short"]))
	})
	inParallel(t, "with the expired certificate", live["short"], func(c liveClient) error {
		h, ok := c.(*h2Client)
		if !ok {
			return c.ended()
		}
		// By the client's own clock, the certificate is still valid.
		if code, reused, err := tryRequest(t.Context(), h.http, h.url); err == nil && reused && code != http.StatusMisdirectedRequest {
			return fmt.Errorf("answered with %d", code)
		}
		return nil
	})
	inParallel(t, "with the other certificate", live["long"], liveClient.alive)
}

// The request in progress of a client that no longer verifies is answered in full. Then
// the connection ends as its protocol requires: with Connection: close, or GOAWAY.
func TestARequestInProgressOfARevokedClientEndsPolitely(t *testing.T) {
	g, ca := start(t, ""), certstest.NewCA(t)
	arrived, release := make(chan struct{}, 2), make(chan struct{})
	plain := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		arrived <- struct{}{}
		<-release
		io.WriteString(w, "whole")
	}))
	t.Cleanup(plain.Close)
	cert, settings := frontTLS(t, ca, adminv1.ClientAuth_CLIENT_AUTH_REQUIRED)
	settings.Revalidation = &adminv1.Revalidation{Grace: durationpb.New(deadline)}
	l := httpListener("https", "127.0.0.1:0")
	l.Tls = settings
	g.put(bundle("clients", ca, ca.CRL(t)), cert, l, plainUpstream("up", plain.Listener.Addr().String()))
	alice := ca.Client(t, "alice")
	connect := func(protocol string) *tls.Conn {
		c := tls.Client(dial(t, g.address("https")).Conn, &tls.Config{
			RootCAs: ca.Pool(), ServerName: "front.example", NextProtos: []string{protocol}, Certificates: []tls.Certificate{certstest.TLS(t, alice)}})
		if err := c.HandshakeContext(t.Context()); err != nil {
			t.Fatal(err)
		}
		return c
	}
	one, two := connect("http/1.1"), connect("h2")
	io.WriteString(one, "GET / HTTP/1.1\r\nHost: front.example\r\n\r\n")
	var head bytes.Buffer
	fields := hpack.NewEncoder(&head)
	for _, f := range [][2]string{{":method", "GET"}, {":scheme", "https"}, {":authority", "front.example"}, {":path", "/"}} {
		fields.WriteField(hpack.HeaderField{Name: f[0], Value: f[1]})
	}
	io.WriteString(two, http2.ClientPreface)
	frames := http2.NewFramer(two, two)
	frames.WriteSettings()
	frames.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: head.Bytes(), EndStream: true, EndHeaders: true})
	<-arrived
	<-arrived
	g.put(bundle("clients", ca, ca.CRL(t, alice.Leaf)))
	eventually(t, "both failures are found", func() bool {
		return g.clientsEnded(certs.ReasonRevoked) == 2
	})
	goingAway := false
	for body := ""; body == ""; {
		frame, err := frames.ReadFrame()
		if err != nil {
			t.Fatal(err)
		}
		switch f := frame.(type) {
		case *http2.GoAwayFrame:
			if f.ErrCode != http2.ErrCodeNo {
				t.Errorf("GOAWAY with %v", f.ErrCode)
			}
			if !goingAway {
				close(release)
			}
			goingAway = true
		case *http2.DataFrame:
			if body = string(f.Data()); body != "whole" {
				t.Errorf("HTTP/2: the body is %q", body)
			}
		}
	}
	if !goingAway {
		t.Error("there was no GOAWAY")
	}
	resp, err := http.ReadResponse(bufio.NewReader(one), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if body, err := io.ReadAll(resp.Body); err != nil || string(body) != "whole" || !resp.Close {
		t.Errorf("HTTP/1.1: %q, %v, Connection: close is %v", body, err, resp.Close)
	}
	for name, c := range map[string]net.Conn{"HTTP/1.1": one, "HTTP/2": two} {
		if _, err := io.Copy(io.Discard, c); err != nil {
			t.Errorf("%s: the connection did not end well: %v", name, err)
		}
	}
}
