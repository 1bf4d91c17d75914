package l7

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime/pprof"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"go.uber.org/goleak"

	"github.com/drawbridge-gateway/drawbridge/bridge/l7/backs"
	"github.com/drawbridge-gateway/drawbridge/bridge/logtest"
	"github.com/drawbridge-gateway/drawbridge/bridge/route"
	"github.com/drawbridge-gateway/drawbridge/bridge/socket/sockettest"
	"github.com/drawbridge-gateway/drawbridge/bridge/upstream"
	"github.com/drawbridge-gateway/drawbridge/certs"
	"github.com/drawbridge-gateway/drawbridge/certs/certstest"
)

func TestMain(m *testing.M) {
	// net/http's test servers sleep a while before they close a connection.
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("net/http.(*conn).closeWriteAndWait"))
}

// testTimeout bounds waits for required events. No test waits that long if it
// passes.
const testTimeout = time.Minute

// A testbed has a CA. It starts upstream servers that require its client
// certificates, and gateways in front of them.
type testbed struct {
	testing.TB
	ca  *certstest.CA
	log *logtest.Buffer
}

func newTestbed(t testing.TB) *testbed { return &testbed{t, certstest.NewCA(t), &logtest.Buffer{}} }

// label marks the goroutines of w's gateways in profiles.
func (w *testbed) label() string { return fmt.Sprintf("%p", w) }

func (w *testbed) logger(level hclog.Level) hclog.Logger {
	return hclog.New(&hclog.LoggerOptions{Output: w.log, Level: level})
}

func (w *testbed) serverTLS(protos ...string) *tls.Config {
	return &tls.Config{
		Certificates: []tls.Certificate{certstest.TLS(w, w.ca.Server(w, "localhost", "127.0.0.1"))},
		ClientAuth:   tls.RequireAndVerifyClientCert,
		ClientCAs:    w.ca.Pool(),
		NextProtos:   protos,
	}
}

func listen(t testing.TB) net.Listener {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	return ln
}

// server starts an HTTPS upstream server that speaks one of protos.
func (w *testbed) server(h http.Handler, protos ...string) (address string) {
	return w.serverOn(listen(w), h, protos...)
}

// serverOn is server on a listener.
func (w *testbed) serverOn(ln net.Listener, h http.Handler, protos ...string) (address string) {
	srv := &http.Server{Handler: h, DisableGeneralOptionsHandler: true, ErrorLog: w.logger(hclog.Trace).StandardLogger(nil)}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = srv.Serve(tls.NewListener(ln, w.serverTLS(protos...)))
	}()
	w.Cleanup(func() { srv.Close(); <-done })
	return ln.Addr().String()
}

// raw starts an upstream whose connections f serves, after a TLS handshake if
// config is not nil.
func (w *testbed) raw(config *tls.Config, f func(net.Conn)) (address string) {
	ln := listen(w)
	if config != nil {
		ln = tls.NewListener(ln, config)
	}
	var all sync.WaitGroup
	all.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			all.Go(func() {
				defer c.Close()
				f(c)
			})
		}
	})
	w.Cleanup(func() { ln.Close(); all.Wait() })
	return ln.Addr().String()
}

// closed returns an address that refuses connections.
func (w *testbed) closed() string { return sockettest.Free(w) }

func (w *testbed) client(protos ...string) *certs.Client {
	c, err := certs.NewClient(certs.ClientOptions{
		Certificate: certstest.Certificate(w, w.ca.Client(w, "gateway")),
		Trust:       []*certs.TrustBundle{w.ca.Trust(w)},
		ServerName:  "localhost",
		NextProtos:  protos,
	})
	if err != nil {
		w.Fatal(err)
	}
	return c
}

// back returns a Back to TLS endpoints.
func (w *testbed) back(p backs.Protocol, addresses ...string) *backs.Pools {
	protos := map[backs.Protocol][]string{backs.Auto: {"h2", "http/1.1"}, backs.HTTP1: {"http/1.1"}, backs.HTTP2: {"h2"}}[p]
	o := upstream.Options{Name: "up", Logger: w.logger(hclog.Warn), ConnectTimeout: testTimeout, HandshakeTimeout: testTimeout}
	for _, a := range addresses {
		o.Endpoints = append(o.Endpoints, upstream.EndpointOptions{Network: "tcp", Address: a, Stream: w.client(), HTTP: w.client(protos...)})
	}
	return w.newBack(backs.Options{Upstream: upstream.New(o), Protocol: p, TLS: true})
}

func (w *testbed) newBack(o backs.Options) *backs.Pools {
	b := backs.New(o)
	w.Cleanup(b.Retire)
	return b
}

func to(b *backs.Pools) *Action {
	return &Action{Forward: &Forward{Backs: upstream.NewSplit([]upstream.Weighted[*backs.Pools]{{Value: b}})}}
}

func (w *testbed) routes(rules ...route.Rule[*Action]) *route.Table[*Action] {
	w.Helper()
	table, err := route.New(rules)
	if err != nil {
		w.Fatal(err)
	}
	return table
}

// listenerTLS returns the TLS of a listener.
func (w *testbed) listenerTLS(protos ...string) *certs.Servers {
	s, err := certs.NewServer(certs.ServerOptions{
		Certificates: []*certs.Certificate{certstest.Certificate(w, w.ca.Server(w, "localhost", "127.0.0.1"))},
		NextProtos:   protos,
	})
	if err != nil {
		w.Fatal(err)
	}
	return certs.NewServers(s)
}

// gateway serves a table; later tables come from table().
func (w *testbed) gateway(table func() *Table) (s *Server, address string) {
	s = New(Options{Listener: "front", Table: table, Logger: w.logger(hclog.Debug)})
	return s, w.serve(s)
}

// serve runs s until the test ends.
func (w *testbed) serve(s *Server) (address string) {
	ln := listen(w)
	done := make(chan error, 1)
	go pprof.Do(context.Background(), pprof.Labels("world", w.label()), func(context.Context) { done <- s.Serve(ln) })
	w.Cleanup(func() {
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		_ = s.Shutdown(ctx)
		if err := <-done; err != ErrServerClosed {
			w.Errorf("Serve: %v", err)
		}
	})
	return ln.Addr().String()
}

func fixed(t *Table) func() *Table { return func() *Table { return t } }

// plain starts a plaintext gateway in front of one back.
func (w *testbed) plain(b *backs.Pools) (s *Server, address string) {
	return w.gateway(fixed(&Table{Default: to(b)}))
}

// browser returns a client that uses HTTP/2 where a gateway offers it.
func (w *testbed) browser() *http.Client {
	t := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: w.ca.Pool(), ServerName: "localhost"}, ForceAttemptHTTP2: true, DisableCompression: true}
	w.Cleanup(t.CloseIdleConnections)
	return &http.Client{Transport: t, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
}

func (w *testbed) get(c *http.Client, url string) (code int, body string) {
	w.Helper()
	res, err := c.Get(url)
	if err != nil {
		w.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		w.Fatal(err)
	}
	return res.StatusCode, string(b)
}

// dial connects to a gateway without HTTP.
func (w *testbed) dial(address string) *rawConn {
	w.Helper()
	c, err := net.Dial("tcp", address)
	if errors.Is(err, syscall.ECONNRESET) { // the gateway reset the connection before the call returned
		var far net.Conn
		c, far = net.Pipe()
		far.Close()
		err = nil
	}
	if err != nil {
		w.Fatal(err)
	}
	w.Cleanup(func() { c.Close() })
	_ = c.SetDeadline(time.Now().Add(testTimeout))
	return &rawConn{c, bufio.NewReader(c)}
}

type rawConn struct {
	net.Conn
	r *bufio.Reader
}

// send writes lines as a request, each with the line end of HTTP.
func (c *rawConn) send(lines ...string) { fmt.Fprint(c, strings.Join(lines, "\r\n")+"\r\n\r\n") }

// answer reads a response to a request with a method.
func (c *rawConn) answer(t testing.TB, method string) (*http.Response, string) {
	t.Helper()
	res, err := http.ReadResponse(c.r, &http.Request{Method: method})
	if err != nil {
		t.Fatalf("no response: %v", err)
	}
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res, string(b)
}

// closedUnanswered waits for a response, and reports that the gateway closed the connection instead, as
// it does if the client sends its request too late.
func (c *rawConn) closedUnanswered() bool {
	_, err := c.r.Peek(1)
	return err == io.EOF || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
}

// eventually waits until a condition holds.
func eventually(t testing.TB, condition string, ok func() bool) {
	t.Helper()
	end := time.Now().Add(testTimeout)
	for pause := time.Millisecond; !ok(); pause = min(2*pause, 20*time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("never happened: %s", condition)
		}
		time.Sleep(pause)
	}
}

// withGrowingLimit calls try with growing time limits until it reports that its limit has not passed
// too early. A busy machine may stall for longer than a short limit between any two steps of a try.
func withGrowingLimit(t testing.TB, first time.Duration, try func(limit time.Duration) (inTime bool)) {
	t.Helper()
	for limit := first; !try(limit); limit *= 4 {
		if limit > 10*time.Second {
			t.Fatalf("a limit of %v passes too early", limit)
		}
	}
}

// echo answers with the body of the request.
var echo = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
	b, err := io.ReadAll(r.Body)
	if err != nil {
		panic(http.ErrAbortHandler) // an answer to an incomplete request could overtake the gateway's answer
	}
	peer := ""
	if r.TLS != nil && len(r.TLS.PeerCertificates) > 0 {
		peer = r.TLS.PeerCertificates[0].Subject.CommonName
	}
	fmt.Fprintf(w, "%s %s %s %s by %s: %s", r.Proto, r.Method, r.Host, r.RequestURI, peer, b)
})

// plaintext returns an upstream without TLS.
func plaintext(address string) *upstream.Upstream {
	return upstream.New(upstream.Options{Name: "up", ConnectTimeout: testTimeout, HandshakeTimeout: testTimeout, Endpoints: []upstream.EndpointOptions{{Network: "tcp", Address: address}}})
}
