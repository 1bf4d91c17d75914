package gateway

import (
	"bufio"
	"crypto/sha256"
	"crypto/tls"
	"encoding/base64"
	"fmt"
	"io"
	"log"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/drawbridge-gateway/drawbridge/bridge/alloctest"
	"github.com/drawbridge-gateway/drawbridge/certs"
	"github.com/drawbridge-gateway/drawbridge/certs/certstest"
	"github.com/drawbridge-gateway/drawbridge/certs/pki"
	"github.com/drawbridge-gateway/drawbridge/gateway/store"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

// An exchange is a request in progress. The server echoes each line of its body.
type exchange struct {
	net.Conn
	r    *bufio.Reader // reads the connection
	body *bufio.Reader // nil until the response has begun
}

func (e *exchange) alive() error {
	e.SetDeadline(time.Now().Add(deadline))
	if _, err := io.WriteString(e, "5\r\nline\n\r\n"); err != nil {
		return err
	}
	if e.body == nil {
		resp, err := http.ReadResponse(e.r, nil)
		if err != nil {
			return err
		}
		if resp.StatusCode != 200 {
			return fmt.Errorf("answered with %d", resp.StatusCode)
		}
		e.body = bufio.NewReader(resp.Body)
	}
	_, err := e.body.ReadString('\n')
	return err
}

func (e *exchange) ended() error {
	e.SetDeadline(time.Now().Add(deadline))
	if text, err := e.body.ReadString('\n'); err == nil || err == io.EOF || timedOut(err) {
		return fmt.Errorf("read %q, %v", text, err) // io.EOF: the response looks complete
	}
	return nil
}

// An echoServer speaks TLS, and echoes the lines of streams, tunnels and requests.
type echoServer struct {
	name, stream, http1, http2 string // name and addresses

	mu   sync.Mutex
	open map[string]int // connections by address
	hold int            // number of requests for /together that are answered together
	held chan struct{}
}

// count counts the connections of a server.
func (s *echoServer) count(address *string) func(net.Conn, http.ConnState) {
	return func(_ net.Conn, state http.ConnState) {
		s.mu.Lock()
		defer s.mu.Unlock()
		switch state {
		case http.StateNew:
			s.open[*address]++
		case http.StateClosed, http.StateHijacked: // the server no longer owns a hijacked connection
			s.open[*address]--
		}
	}
}

func (s *echoServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch r.URL.Path {
	case "/tunnel":
		c, rw, err := w.(http.Hijacker).Hijack()
		if err != nil {
			return
		}
		defer c.Close()
		io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
		io.Copy(c, rw)
	case "/together": // each of these requests occupies a connection
		s.mu.Lock()
		if s.hold--; s.hold == 0 {
			close(s.held)
		}
		s.mu.Unlock()
		<-s.held
	default:
		flush := http.NewResponseController(w)
		flush.EnableFullDuplex()
		for lines := bufio.NewReader(r.Body); ; flush.Flush() {
			line, err := lines.ReadString('\n')
			if err != nil {
				return
			}
			io.WriteString(w, line)
		}
	}
}

func newEchoServer(t *testing.T, name string, issued *pki.Issued, idle int) *echoServer {
	t.Helper()
	s := &echoServer{name: name, open: make(map[string]int), hold: idle, held: make(chan struct{})}
	config := func(protos ...string) *tls.Config {
		return &tls.Config{Certificates: []tls.Certificate{certstest.TLS(t, issued)}, ClientAuth: tls.RequestClientCert, NextProtos: protos}
	}
	ln, err := tls.Listen("tcp", "127.0.0.1:0", config())
	if err != nil {
		t.Fatal(err)
	}
	s.stream = ln.Addr().String()
	serve(t, ln, func(c net.Conn) { io.Copy(c, c) })
	web := func(address *string, protos ...string) {
		server := httptest.NewUnstartedServer(s)
		server.TLS = config(protos...)
		server.EnableHTTP2 = len(protos) == 0
		server.Config.HTTP2 = &http.HTTP2Config{MaxConcurrentStreams: 1} // each request has its own connection
		server.Config.ErrorLog = log.New(io.Discard, "", 0)
		server.Config.ConnState = s.count(address)
		*address = server.Listener.Addr().String()
		server.StartTLS()
		t.Cleanup(func() {
			server.CloseClientConnections()
			server.Close()
		})
	}
	web(&s.http1, "http/1.1")
	web(&s.http2)
	return s
}

// connections returns the connections of the HTTP servers, without tunnels.
func (s *echoServer) connections() map[string]int {
	s.mu.Lock()
	defer s.mu.Unlock()
	open := maps.Clone(s.open)
	maps.DeleteFunc(open, func(_ string, n int) bool { return n == 0 })
	return open
}

// An endpointGroup is a group of upstreams with one server, and the clients whose
// connections lead to it.
type endpointGroup struct {
	*echoServer
	settings *adminv1.UpstreamTls
	reason   certs.Reason // why the connections end; "": they stay
	end      func()
	live     []liveClient
}

// resources returns an upstream and a plaintext listener for each protocol.
func (e *endpointGroup) resources() (all []store.Resource) {
	for _, u := range e.upstreams() {
		l := httpListener(u.GetName(), "127.0.0.1:0")
		if u.GetHttp() == nil {
			l = tcpListener(u.GetName(), "127.0.0.1:0")
		}
		l.Upstream = u.GetName()
		all = append(all, u, l)
	}
	return all
}

func (e *endpointGroup) upstreams() (all []*adminv1.Upstream) {
	for _, kind := range []struct {
		name, address string
		http          *adminv1.UpstreamHttp
	}{
		{"stream", e.stream, nil},
		{"http1", e.http1, &adminv1.UpstreamHttp{Protocol: adminv1.HttpProtocol_HTTP_PROTOCOL_1_1}},
		{"http2", e.http2, &adminv1.UpstreamHttp{Protocol: adminv1.HttpProtocol_HTTP_PROTOCOL_2}},
	} {
		all = append(all, &adminv1.Upstream{
			Name: e.name + "-" + kind.name, Endpoints: []*adminv1.Endpoint{{Address: kind.address}}, Http: kind.http,
			Transport: &adminv1.Upstream_Tls{Tls: proto.Clone(e.settings).(*adminv1.UpstreamTls)},
		})
	}
	return all
}

// dial opens n connections of each kind to the server through the gateway. The
// connections of the last kind stay idle in the pool.
func (e *endpointGroup) dial(g *testGateway, n int) {
	connect := func(kind string) *exchange {
		c := dial(g.t, g.address(e.name+"-"+kind))
		return &exchange{Conn: c.Conn, r: c.r}
	}
	for range n {
		stream, tunnel := connect("stream"), connect("http1")
		io.WriteString(tunnel, "GET /tunnel HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
		if resp, err := http.ReadResponse(tunnel.r, nil); err != nil || resp.StatusCode != http.StatusSwitchingProtocols {
			g.t.Fatalf("%s: no tunnel: %v", e.name, err)
		}
		e.live = append(e.live, &rawClient{stream.Conn, stream.r, false}, &rawClient{tunnel.Conn, tunnel.r, false})
		for _, protocol := range []string{"http1", "http2"} {
			x := connect(protocol)
			io.WriteString(x, "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
			// Use them one after another, because a new HTTP/2 connection may refuse
			// streams before its limit is known.
			if err := x.alive(); err != nil {
				g.t.Fatalf("%s: %v", e.name, err)
			}
			e.live = append(e.live, x)
		}
	}
	inParallel(g.t, e.name+": must be served", e.live, liveClient.alive)
	var idle sync.WaitGroup
	for range n {
		x := connect("http1")
		idle.Go(func() {
			io.WriteString(x, "GET /together HTTP/1.1\r\nHost: a\r\n\r\n")
			if resp, err := http.ReadResponse(x.r, nil); err != nil || resp.StatusCode != 200 {
				g.t.Errorf("%s: no response: %v", e.name, err)
			}
		})
	}
	idle.Wait()
}

// made returns how many connections to the group's endpoints were ever opened, and, by
// reason, how many no longer verified.
func (e *endpointGroup) made(g *testGateway) (made int, ended map[certs.Reason]uint64) {
	ended = make(map[certs.Reason]uint64)
	for _, u := range e.upstreams() {
		live, _ := g.live.Load().Upstream(u.GetName())
		for _, s := range live.Live.Status() {
			made += int(s.Made)
		}
		for reason, n := range live.Tracker.Peers().Counts().Ended {
			ended[reason] += n
		}
	}
	return made, ended
}

// A thousand connections to upstreams are open: idle ones in pools, and connections of
// requests, tunnels and streams. A connection ends exactly if the endpoint's certificate
// is revoked, expires, or loses its CA, name or pin, or if the gateway's own certificate
// for the connection expires. No other connection is affected.
func TestExactlyTheRightConnectionsToUpstreamsEnd(t *testing.T) {
	n := 30
	if alloctest.Race || testing.Short() {
		n = 3
	}
	g, offset := startWithClock(t)
	ca, partners := certstest.NewCA(t), certstest.NewCA(t)
	expiring := func(usage pki.Usage, in time.Duration) *pki.Issued {
		return ca.Leaf(t, pki.LeafOptions{CommonName: "expires", DNSNames: []string{"up.example"}, Usage: usage, NotAfter: time.Now().Add(in)})
	}
	revoked, pinned, own := ca.Server(t, "up.example"), ca.Server(t, "up.example"), expiring(pki.Client, 4*time.Hour)
	pin := sha256.Sum256(pinned.Leaf.RawSubjectPublicKeyInfo)

	// newGroup returns a group whose server has the certificate. change makes the
	// group's connections end.
	newGroup := func(name string, issued *pki.Issued, settings *adminv1.UpstreamTls, reason certs.Reason, change func(*adminv1.UpstreamTls)) *endpointGroup {
		if settings == nil {
			settings = new(adminv1.UpstreamTls)
		}
		if settings.TrustBundles == nil {
			settings.TrustBundles = []string{"corp"}
		}
		settings.VerifyName, settings.Revalidation = "up.example", &adminv1.Revalidation{Grace: durationpb.New(300 * time.Millisecond)}
		e := &endpointGroup{echoServer: newEchoServer(t, name, issued, n), settings: settings, reason: reason}
		e.end = func() {
			change(settings)
			var all []store.Resource
			for _, u := range e.upstreams() {
				all = append(all, u)
			}
			g.put(all...)
		}
		return e
	}
	groups := []*endpointGroup{
		newGroup("revoked", revoked, nil, certs.ReasonRevoked, func(*adminv1.UpstreamTls) { g.put(bundle("corp", ca, ca.CRL(t, revoked.Leaf))) }),
		newGroup("removed", partners.Server(t, "up.example"), &adminv1.UpstreamTls{TrustBundles: []string{"corp", "partners"}}, certs.ReasonUnknownCA,
			func(s *adminv1.UpstreamTls) { s.TrustBundles = []string{"corp"} }),
		newGroup("renamed", ca.Server(t, "up.example"), nil, certs.ReasonNameMismatch, func(s *adminv1.UpstreamTls) { s.VerifyName = "another.example" }),
		newGroup("pinned", pinned, &adminv1.UpstreamTls{SpkiPins: []string{base64.StdEncoding.EncodeToString(pin[:])}}, certs.ReasonPinMismatch,
			func(s *adminv1.UpstreamTls) {
				s.SpkiPins = []string{base64.StdEncoding.EncodeToString(make([]byte, 32))}
			}),
		newGroup("expired", expiring(pki.Server, time.Hour), nil, certs.ReasonExpired, func(*adminv1.UpstreamTls) { offset.Store(int64(2 * time.Hour)) }),
		newGroup("own", ca.Server(t, "up.example"), &adminv1.UpstreamTls{Certificate: "own"}, certs.ReasonOwnCertificateExpired,
			func(*adminv1.UpstreamTls) { offset.Store(int64(5 * time.Hour)) }),
		newGroup("valid", ca.Server(t, "up.example"), nil, "", nil),
	}
	all := []store.Resource{bundle("corp", ca, ca.CRL(t)), bundle("partners", partners), inlineCertificate("own", own)}
	for _, e := range groups {
		all = append(all, e.resources()...)
	}
	g.put(all...)
	before := make(map[*endpointGroup]map[string]int)
	for _, e := range groups {
		e.dial(g, n)
		before[e] = e.connections()
		if before[e][e.http1] != 2*n || before[e][e.http2] != n {
			t.Fatalf("%s: %v, want %d connections of requests in progress, and as many idle ones", e.name, before[e], n)
		}
	}
	for i, e := range groups {
		if e.reason == "" {
			continue
		}
		e.end()
		eventually(t, e.name+": all are found", func() bool {
			_, ended := e.made(g)
			return ended[e.reason] == uint64(5*n)
		})
		inParallel(t, e.name+": must end", e.live, liveClient.ended)
		eventually(t, e.name+": idle ones are closed", func() bool { return len(e.connections()) == 0 })
		for _, other := range groups[i+1:] {
			what := e.name + " ended, and those that are " + other.name + " must stay"
			inParallel(t, what, other.live, liveClient.alive)
			if made, ended := other.made(g); made != 5*n || len(ended) > 0 || !maps.Equal(other.connections(), before[other]) {
				t.Fatalf("%s: %d made, found %v, open %v", what, made, ended, other.connections())
			}
		}
	}
}
