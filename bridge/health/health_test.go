package health_test

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	grpchealth "google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"

	"github.com/drawbridge-gateway/drawbridge/bridge/health"
	"github.com/drawbridge-gateway/drawbridge/bridge/socket/sockettest"
	"github.com/drawbridge-gateway/drawbridge/bridge/upstream"
	"github.com/drawbridge-gateway/drawbridge/certs"
	"github.com/drawbridge-gateway/drawbridge/certs/certstest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A pair is the TLS configuration of a server that requires a client
// certificate, and of its client.
type pair struct {
	ca     *certstest.CA
	server *tls.Config
	client certs.ClientOptions
}

func newPair(t *testing.T) *pair {
	ca := certstest.NewCA(t)
	return &pair{
		ca: ca,
		server: &tls.Config{
			Certificates: []tls.Certificate{certstest.TLS(t, ca.Server(t, "up.test"))},
			ClientAuth:   tls.RequireAndVerifyClientCert, ClientCAs: ca.Pool(),
		},
		client: certs.ClientOptions{
			ServerName: "up.test", Trust: []*certs.TrustBundle{ca.Trust(t)}, Certificate: certstest.Certificate(t, ca.Client(t, "gateway")),
			NextProtos: []string{"h2", "http/1.1"},
		},
	}
}

// over returns an upstream with one endpoint. A nil client means plaintext.
func over(t *testing.T, network, address string, client *certs.ClientOptions, change func(*upstream.Options)) *upstream.Upstream {
	t.Helper()
	eo := upstream.EndpointOptions{Network: network, Address: address}
	if client != nil {
		c, err := certs.NewClient(*client)
		if err != nil {
			t.Fatal(err)
		}
		eo.Stream, eo.HTTP = c, c
	}
	o := upstream.Options{Name: "up", Endpoints: []upstream.EndpointOptions{eo}}
	if change != nil {
		change(&o)
	}
	return upstream.New(o)
}

// ask runs one check with a timeout of within.
func ask(t *testing.T, u *upstream.Upstream, check health.Check, within time.Duration) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), within)
	defer cancel()
	return check(ctx, u.Endpoints()[0])
}

func wantReason(t *testing.T, err error, want certs.Reason, says string) {
	t.Helper()
	if got := certs.Classify(err); got != want {
		t.Errorf("%v: reason %q, want %q", err, got, want)
	}
	if says != "" && (err == nil || !strings.Contains(err.Error(), says)) {
		t.Errorf("the error is %v, which does not say %q", err, says)
	}
}

// serveHTTP serves HTTP/1.1 and, with TLS, HTTP/2.
func serveHTTP(t *testing.T, config *tls.Config, handler http.HandlerFunc) string {
	t.Helper()
	s := httptest.NewUnstartedServer(handler)
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.Config.Protocols = new(http.Protocols)
	s.Config.Protocols.SetHTTP1(true)
	s.Config.Protocols.SetHTTP2(true)
	s.Config.Protocols.SetUnencryptedHTTP2(true)
	s.EnableHTTP2 = true
	if s.TLS = config; config != nil {
		s.TLS = config.Clone()
		s.StartTLS()
	} else {
		s.Start()
	}
	t.Cleanup(s.Close)
	return s.Listener.Addr().String()
}

// serve runs handle for each connection until the test ends.
func serve(t *testing.T, network string, handle func(net.Conn)) string {
	t.Helper()
	address := "127.0.0.1:0"
	if network == "unix" {
		address = filepath.Join(t.TempDir(), "s")
	}
	l, err := net.Listen(network, address)
	if err != nil {
		t.Fatal(err)
	}
	var conns sync.WaitGroup
	conns.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			conns.Go(func() {
				defer c.Close()
				handle(c)
			})
		}
	})
	t.Cleanup(func() { l.Close(); conns.Wait() })
	return l.Addr().String()
}

func silent(c net.Conn) { io.Copy(io.Discard, c) }

// serveGRPC serves the health service of the gRPC library.
func serveGRPC(t *testing.T, config *tls.Config, of *grpchealth.Server) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var options []grpc.ServerOption
	if config != nil {
		options = append(options, grpc.Creds(credentials.NewTLS(config)))
	}
	s := grpc.NewServer(options...)
	if of != nil {
		grpc_health_v1.RegisterHealthServer(s, of)
	}
	done := make(chan struct{})
	go func() { defer close(done); _ = s.Serve(l) }()
	t.Cleanup(func() { s.Stop(); <-done })
	return l.Addr().String()
}

func TestHealthyEndpoints(t *testing.T) {
	p := newPair(t)
	says := func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "%s %s %s %s", r.Proto, r.Method, r.Host, r.RequestURI)
	}
	serving := grpchealth.NewServer()
	serving.SetServingStatus("pay", grpc_health_v1.HealthCheckResponse_SERVING)
	only1 := p.server.Clone()
	only1.NextProtos = []string{"http/1.1"}
	for _, test := range []struct {
		name    string
		address string
		client  *certs.ClientOptions
		ask     health.Check
	}{
		{"a connection", serve(t, "tcp", silent), nil, health.TCP()},
		{"a TCP check of an endpoint that speaks TLS", serveHTTP(t, p.server, says), &p.client, health.TCP()},
		{"a handshake", serveHTTP(t, p.server, says), &p.client, health.TLS(upstream.Stream, "")},
		{"HTTP/1.1 in plaintext", serveHTTP(t, nil, says), nil, health.HTTP(health.HTTPOptions{Contains: "HTTP/1.1 GET 127.0.0.1:"})},
		{"HTTP/2 in plaintext", serveHTTP(t, nil, says), nil, health.HTTP(health.HTTPOptions{Contains: "HTTP/2.0 GET ", PriorKnowledge: true})},
		{"HTTP/1.1 over TLS", serveHTTP(t, only1, says), &p.client,
			health.HTTP(health.HTTPOptions{Path: "/well?is=it", Contains: "HTTP/1.1 GET up.test /well?is=it"})},
		{"HTTP/2 over TLS", serveHTTP(t, p.server, says), &p.client,
			health.HTTP(health.HTTPOptions{Host: "other.test:81", Path: "/a%2Fb//c", Contains: "HTTP/2.0 GET other.test:81 /a%2Fb//c", PriorKnowledge: true})},
		{"HEAD that expects 418", serveHTTP(t, p.server, func(w http.ResponseWriter, r *http.Request) {
			if r.Method == http.MethodHead {
				w.WriteHeader(418)
			}
		}), &p.client, health.HTTP(health.HTTPOptions{Method: "HEAD", Codes: []health.Codes{{200, 204}, {418, 418}}})},
		{"a body without an end", serveHTTP(t, p.server, func(w http.ResponseWriter, r *http.Request) {
			for r.Context().Err() == nil {
				w.Write(make([]byte, 1<<10))
			}
		}), &p.client, health.HTTP(health.HTTPOptions{})},
		{"gRPC", serveGRPC(t, p.server, serving), &p.client, health.GRPC(health.GRPCOptions{})},
		{"a gRPC service", serveGRPC(t, p.server, serving), &p.client, health.GRPC(health.GRPCOptions{Service: "pay"})},
		{"gRPC in plaintext", serveGRPC(t, nil, serving), nil, health.GRPC(health.GRPCOptions{Service: "pay"})},
	} {
		t.Run(test.name, func(t *testing.T) {
			u := over(t, "tcp", test.address, test.client, nil)
			for range 2 {
				if err := ask(t, u, test.ask, time.Minute); err != nil {
					t.Error(err)
				}
			}
			// Checks do not count as traffic.
			s := u.Status()[0]
			if s.Made != 0 || s.Open != 0 || s.Requests != 0 || s.Connects.Count != 0 || s.Handshakes.Count != 0 || s.HandshakesFull != 0 ||
				len(s.Full) != 0 || len(s.Failures) != 0 || s.Health != upstream.Unknown {
				t.Errorf("checks were counted as traffic: %+v", s)
			}
		})
	}
}

func TestUnhealthyEndpoints(t *testing.T) {
	p, other := newPair(t), certstest.NewCA(t)
	fine := func(http.ResponseWriter, *http.Request) {}
	foreign, anonymous, old := p.client, p.client, p.client
	foreign.Trust = []*certs.TrustBundle{other.Trust(t)}
	anonymous.Certificate = nil
	old.Certificate, old.MaxVersion = nil, tls.VersionTLS12
	sick := grpchealth.NewServer()
	sick.SetServingStatus("", grpc_health_v1.HealthCheckResponse_NOT_SERVING)
	only1 := p.server.Clone()
	only1.NextProtos = []string{"http/1.1"}
	kinds := map[string]health.Check{
		"tcp": health.TCP(), "tls": health.TLS(upstream.HTTP, ""), "http": health.HTTP(health.HTTPOptions{}), "grpc": health.GRPC(health.GRPCOptions{}),
	}
	body := func(text string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, text) }
	}
	for _, test := range []struct {
		name    string
		address string
		client  *certs.ClientOptions
		kinds   string // names of the kinds of checks, each followed by a space
		ask     health.Check
		want    certs.Reason
		says    string
	}{
		{"no listener", sockettest.Free(t), &p.client, "tcp tls http grpc ", nil, certs.ReasonConnectRefused, "refused"},
		{"a certificate of another CA", serveHTTP(t, p.server, fine), &foreign, "tls http grpc ", nil, certs.ReasonUnknownCA, "leads to no trusted CA"},
		{"we present no certificate", serveHTTP(t, p.server, fine), &anonymous, "tls http grpc ", nil, certs.ReasonClientCertificateRequired, ""},
		{"we present no certificate, in TLS 1.2", serveHTTP(t, p.server, fine), &old, "tls http grpc ", nil, certs.ReasonClientCertificateRequired, ""},
		{"the endpoint speaks plaintext", serveHTTP(t, nil, fine), &p.client, "tls http grpc ", nil, certs.ReasonNotTLS, ""},
		{"an unexpected status code", serveHTTP(t, p.server, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(503) }), &p.client, "",
			health.HTTP(health.HTTPOptions{Codes: []health.Codes{{200, 299}, {401, 401}}}), certs.ReasonCheckFailed, "the endpoint answered 503, which is not 200 to 299 or 401"},
		{"a redirect, which is not followed", serveHTTP(t, p.server, func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/x", http.StatusFound) }), &p.client,
			"http ", nil, certs.ReasonCheckFailed, "the endpoint answered 302"},
		{"an unexpected body", serveHTTP(t, p.server, body("down for maintenance")), &p.client, "",
			health.HTTP(health.HTTPOptions{Contains: "ok"}), certs.ReasonCheckFailed, `the first 20 bytes of the body do not contain "ok"`},
		{"the expected text comes too late in the body", serveHTTP(t, p.server, body(strings.Repeat("-", 64<<10)+"ok")), &p.client, "",
			health.HTTP(health.HTTPOptions{Contains: "ok"}), certs.ReasonCheckFailed, "the first 65536 bytes"},
		{"an incomplete body", serveHTTP(t, nil, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "100")
			io.WriteString(w, "o")
		}), nil, "", health.HTTP(health.HTTPOptions{Contains: "ok"}), certs.ReasonResponseBroken, "unexpected EOF"},
		{"no response", serve(t, "tcp", func(c net.Conn) { c.Read(make([]byte, 1000)) }), nil, "http grpc ", nil, certs.ReasonResponseBroken, ""},
		{"a response that is not HTTP", serve(t, "tcp", func(c net.Conn) { io.WriteString(c, "220 \x1b[31mready\r\n"); silent(c) }), nil, "http ", nil,
			certs.ReasonResponseBroken, `\\x1b[31mready`},
		{"a header without an end", serve(t, "tcp", func(c net.Conn) {
			io.WriteString(c, "HTTP/1.1 200 OK\r\n")
			for {
				if _, err := io.WriteString(c, "X: "+strings.Repeat("x", 1000)+"\r\n"); err != nil {
					return
				}
			}
		}), nil, "http ", nil, certs.ReasonResponseBroken, ""},
		{"NOT_SERVING", serveGRPC(t, p.server, sick), &p.client, "grpc ", nil, certs.ReasonCheckFailed, "the endpoint is NOT_SERVING"},
		{"an unknown service", serveGRPC(t, nil, sick), nil, "", health.GRPC(health.GRPCOptions{Service: "pay"}), certs.ReasonCheckFailed, "does not know the service"},
		{"a server without the health service", serveGRPC(t, nil, nil), nil, "grpc ", nil, certs.ReasonCheckFailed, "has no grpc.health.v1.Health"},
		{"a response that is not gRPC", serveHTTP(t, p.server, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(404) }), &p.client, "grpc ", nil, certs.ReasonCheckFailed, "the endpoint answered 404, which is not gRPC"},
		{"a response without a gRPC status", serveHTTP(t, p.server, fine), &p.client, "grpc ", nil, certs.ReasonCheckFailed, "has no gRPC status"},
		{"a server without HTTP/2", serveHTTP(t, only1, fine), &p.client, "grpc ", nil, certs.ReasonALPNMismatch, ""},
	} {
		run := func(kind string, how health.Check) {
			t.Run(test.name+" "+kind, func(t *testing.T) {
				u := over(t, "tcp", test.address, test.client, nil)
				err := ask(t, u, how, time.Minute)
				wantReason(t, err, test.want, test.says)
				if s := u.Status()[0]; len(s.Failures) != 0 || s.LastFailure != nil || s.Health != upstream.Unknown {
					t.Errorf("checks were counted as traffic: %+v", s)
				}
			})
		}
		for kind := range strings.FieldsSeq(test.kinds) {
			run(kind, kinds[kind])
		}
		if test.ask != nil {
			run("", test.ask)
		}
	}
}

// A check of a hanging endpoint ends at the timeout, or when the upstream is
// retired.
func TestAHangingEndpointTimesOut(t *testing.T) {
	p := newPair(t)
	hangs := serveHTTP(t, p.server, func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	hangsInBody := serveHTTP(t, p.server, func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, "o")
		w.(http.Flusher).Flush()
		<-r.Context().Done()
	})
	mute := serve(t, "tcp", silent)
	for _, test := range []struct {
		name    string
		address string
		client  *certs.ClientOptions
		ask     health.Check
		want    certs.Reason
	}{
		{"during the handshake", mute, &p.client, health.TLS(upstream.Stream, ""), certs.ReasonHandshakeTimeout},
		{"during the handshake before a request", mute, &p.client, health.HTTP(health.HTTPOptions{}), certs.ReasonHandshakeTimeout},
		{"before the response", hangs, &p.client, health.HTTP(health.HTTPOptions{}), certs.ReasonResponseTimeout},
		{"before the response in plaintext", mute, nil, health.HTTP(health.HTTPOptions{}), certs.ReasonResponseTimeout},
		{"during the body", hangsInBody, &p.client, health.HTTP(health.HTTPOptions{Contains: "ok"}), certs.ReasonResponseTimeout},
		{"before the gRPC response", mute, nil, health.GRPC(health.GRPCOptions{}), certs.ReasonResponseTimeout},
		{"during the gRPC response", hangsInBody, &p.client, health.GRPC(health.GRPCOptions{}), certs.ReasonResponseTimeout},
	} {
		t.Run(test.name, func(t *testing.T) {
			limit, err := 300*time.Millisecond, error(nil)
			for ; ; limit *= 4 {
				err = ask(t, over(t, "tcp", test.address, test.client, nil), test.ask, limit)
				// A busy machine may stall for as long as the limit in an earlier phase.
				r := certs.Classify(err)
				if early := r == certs.ReasonConnectTimeout || r == certs.ReasonHandshakeTimeout; !early || r == test.want || limit > 10*time.Second {
					break
				}
			}
			wantReason(t, err, test.want, "")

			u := over(t, "tcp", test.address, test.client, func(o *upstream.Options) {
				o.Check = upstream.CheckOptions{Check: test.ask, Timeout: time.Hour}
				o.HandshakeTimeout = time.Hour
			})
			u.Start()
			u.Retire()
		})
	}
}

func TestUnixSockets(t *testing.T) {
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, r.Host) })
	l, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: handler}
	done := make(chan struct{})
	go func() { defer close(done); s.Serve(l) }()
	defer func() { s.Close(); <-done }()
	u := over(t, "unix", l.Addr().String(), nil, nil)
	for _, how := range []health.Check{health.TCP(), health.HTTP(health.HTTPOptions{Contains: "localhost"})} {
		if err := ask(t, u, how, time.Minute); err != nil {
			t.Error(err)
		}
	}
}

// With the PROXY protocol, a check announces the gateway's own address.
func TestChecksAnnounceTheGatewaysOwnAddress(t *testing.T) {
	for want, version := range map[string]func(*upstream.Options){
		"PROXY UNKNOWN\r\n":                      func(o *upstream.Options) { o.ProxyProtocol = 1 },
		"\r\n\r\n\x00\r\nQUIT\n\x20\x00\x00\x00": func(o *upstream.Options) { o.ProxyProtocol = 2 },
	} {
		heard := make(chan string, 2)
		address := serve(t, "tcp", func(c net.Conn) {
			got := make([]byte, len(want))
			io.ReadFull(c, got)
			heard <- string(got)
			io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
		})
		u := over(t, "tcp", address, nil, version)
		for _, how := range []health.Check{health.TCP(), health.HTTP(health.HTTPOptions{})} {
			if err := ask(t, u, how, time.Minute); err != nil {
				t.Error(err)
			}
			if got := <-heard; got != want {
				t.Errorf("the server received %q, want %q", got, want)
			}
		}
	}
}

// If the server name depends on the client, a check uses its own host.
func TestCheckUsesItsOwnHostAsServerName(t *testing.T) {
	p := newPair(t)
	p.client.ServerName, p.client.FromHost = "", true
	address := serveHTTP(t, p.server, func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, r.TLS.ServerName, " ", r.Host) })
	u := over(t, "tcp", address, &p.client, nil)
	for _, how := range []health.Check{
		health.TLS(upstream.Stream, "up.test"), health.HTTP(health.HTTPOptions{Host: "up.test:9000", Contains: "up.test up.test:9000"}),
	} {
		if err := ask(t, u, how, time.Minute); err != nil {
			t.Error(err)
		}
	}
	wantReason(t, ask(t, u, health.TLS(upstream.Stream, "other.test"), time.Minute), certs.ReasonNameMismatch, "")
	wantReason(t, ask(t, u, health.HTTP(health.HTTPOptions{}), time.Minute), certs.ReasonNameMismatch, "127.0.0.1") // uses the endpoint's own name
}

// Checks do not use up the TLS sessions kept for traffic.
func TestChecksDoNotUseSessions(t *testing.T) {
	p := newPair(t)
	address := serve(t, "tcp", func(c net.Conn) {
		tc := tls.Server(c, p.server)
		io.Copy(tc, tc)
	})
	u := over(t, "tcp", address, &p.client, nil)
	traffic := func() {
		t.Helper()
		conn, _, err := u.Dial(t.Context(), upstream.Stream)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		conn.Write([]byte("x"))
		if _, err := io.ReadFull(conn, make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
	}
	traffic()
	for range 3 {
		if err := ask(t, u, health.TLS(upstream.Stream, ""), time.Minute); err != nil {
			t.Fatal(err)
		}
	}
	traffic()
	if s := u.Status()[0]; s.HandshakesFull != 1 || s.HandshakesResumed != 1 || s.Made != 2 {
		t.Errorf("%+v", s)
	}
	if s := u.Status()[0]; s.PeerCertificate == nil {
		t.Error("the certificate presented to a check is unknown")
	}
}
