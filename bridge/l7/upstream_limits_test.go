package l7

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/drawbridge-gateway/drawbridge/bridge/l7/backs"
	"github.com/drawbridge-gateway/drawbridge/bridge/upstream"
	"github.com/drawbridge-gateway/drawbridge/certs"
	"github.com/drawbridge-gateway/drawbridge/certs/certstest"
)

// limited returns a Back to TLS endpoints of an upstream with limits.
func (w *testbed) limited(p backs.Protocol, l upstream.Limits, addresses ...string) *backs.Pools {
	protos := map[backs.Protocol][]string{backs.Auto: {"h2", "http/1.1"}, backs.HTTP1: {"http/1.1"}, backs.HTTP2: {"h2"}}[p]
	o := upstream.Options{Name: "up", Logger: w.logger(hclog.Warn), Limits: l, ConnectTimeout: testTimeout, HandshakeTimeout: testTimeout}
	for _, a := range addresses {
		o.Endpoints = append(o.Endpoints, upstream.EndpointOptions{Network: "tcp", Address: a, Stream: w.client(), HTTP: w.client(protos...)})
	}
	return w.newBack(backs.Options{Upstream: upstream.New(o), Protocol: p, TLS: true})
}

// A gate holds requests until it is opened, one by one or for all.
type gate struct {
	came chan struct{} // receives a value for each held request
	pass chan struct{}
	open sync.Once
}

func newGate(t testing.TB) *gate {
	g := &gate{came: make(chan struct{}, 1000), pass: make(chan struct{})}
	t.Cleanup(g.all)
	return g
}

func (g *gate) all() { g.open.Do(func() { close(g.pass) }) }

func (g *gate) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	g.came <- struct{}{}
	select {
	case <-g.pass:
	case <-r.Context().Done():
	}
	fmt.Fprint(w, "ok")
}

func TestFullUpstreamIsAnsweredWith503(t *testing.T) {
	for _, p := range []backs.Protocol{backs.HTTP1, backs.HTTP2} {
		for name, l := range map[string]upstream.Limits{
			"requests": {Requests: 1}, "requests of an endpoint": {RequestsPerEndpoint: 1},
			"the queue": {Requests: 1, Pending: 1, PendingTimeout: time.Hour}, "the time in the queue": {Requests: 1, Pending: 9, PendingTimeout: 10 * time.Millisecond},
		} {
			t.Run(fmt.Sprintf("%v %s", p, name), func(t *testing.T) {
				w, g := newTestbed(t), newGate(t)
				back := w.limited(p, l, w.server(g, "h2", "http/1.1"))
				_, address := w.plain(back)
				u := back.Upstream()
				var others sync.WaitGroup
				defer others.Wait()
				defer g.all()
				hold := func() {
					others.Go(func() {
						if code, _ := w.get(w.browser(), "http://"+address+"/"); code != 200 {
							t.Errorf("a request that held an endpoint got status %d", code)
						}
					})
				}
				hold()
				<-g.came
				if l.Pending == 1 {
					hold()
					eventually(t, "one request waits", func() bool { return u.Load().Pending == 1 })
				}
				res, err := w.browser().Get("http://" + address + "/")
				if err != nil {
					t.Fatal(err)
				}
				body, _ := io.ReadAll(res.Body)
				res.Body.Close()
				if res.StatusCode != 503 || string(body) != "service unavailable\n" || res.Header.Get("Retry-After") != "1" {
					t.Errorf("%d %q, Retry-After %q", res.StatusCode, body, res.Header.Get("Retry-After"))
				}
				r, _ := http.NewRequest("POST", "http://"+address+"/pkg.Service/Method", nil)
				r.Header.Set("Content-Type", "application/grpc")
				if res, err = w.browser().Do(r); err != nil {
					t.Fatal(err)
				}
				res.Body.Close()
				if res.StatusCode != 200 || res.Header.Get("Grpc-Status") != "14" {
					t.Errorf("gRPC: %d, status %q, want UNAVAILABLE", res.StatusCode, res.Header.Get("Grpc-Status"))
				}
				if load := u.Load(); load.Overloaded != 2 || load.InFlight != 1 {
					t.Errorf("load %+v", load)
				}
				eventually(t, "the log has the reason", func() bool {
					log := w.log.String()
					return strings.Contains(log, "reason=OVERLOADED") && strings.Contains(log, "code=503")
				})
			})
		}
	}
}

// Waiting requests are served when earlier requests have ended. A request that
// leaves the queue is forgotten.
func TestRequestsWaitForAnEndpoint(t *testing.T) {
	w, g := newTestbed(t), newGate(t)
	back := w.limited(backs.HTTP2, upstream.Limits{Requests: 2, Pending: 100, PendingTimeout: time.Hour}, w.server(g, "h2"))
	_, address := w.plain(back)
	u := back.Upstream()
	var all sync.WaitGroup
	for range 10 {
		all.Go(func() {
			if code, body := w.get(w.browser(), "http://"+address+"/"); code != 200 {
				t.Errorf("%d %q", code, body)
			}
		})
	}
	eventually(t, "eight wait", func() bool { return u.Load() == upstream.Load{InFlight: 2, Pending: 8} })
	ctx, cancel := context.WithCancel(t.Context())
	all.Go(func() {
		r, _ := http.NewRequestWithContext(ctx, "GET", "http://"+address+"/", nil)
		if res, err := w.browser().Do(r); err == nil {
			res.Body.Close()
			t.Errorf("a request that left the queue got %d", res.StatusCode)
		}
	})
	eventually(t, "nine wait", func() bool { return u.Load().Pending == 9 })
	cancel()
	eventually(t, "one request has left the queue", func() bool { return u.Load().Pending == 8 })
	for range 10 {
		g.pass <- struct{}{}
	}
	all.Wait()
	eventually(t, "all requests have ended", func() bool { return u.Load() == upstream.Load{} })
}

// A connCount counts a server's connections, as the server sees them.
type connCount struct {
	net.Listener
	open, most, made atomic.Int64
}

type countedConn struct {
	net.Conn
	of   *connCount
	once sync.Once
}

func (l *connCount) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	l.made.Add(1)
	n := l.open.Add(1)
	for most := l.most.Load(); n > most && !l.most.CompareAndSwap(most, n); most = l.most.Load() {
	}
	return &countedConn{Conn: c, of: l}, nil
}

func (c *countedConn) Close() error {
	c.once.Do(func() { c.of.open.Add(-1) })
	return c.Conn.Close()
}

// counted starts a server that counts its connections.
func (w *testbed) counted(h http.Handler, protos ...string) (address string, count *connCount) {
	ln := &connCount{Listener: listen(w)}
	srv := &http.Server{Handler: h, TLSConfig: w.serverTLS(protos...), ErrorLog: w.logger(hclog.Trace).StandardLogger(nil)}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = srv.ServeTLS(ln, "", "")
	}()
	w.Cleanup(func() { srv.Close(); <-done })
	return ln.Addr().String(), ln
}

// For any number of requests in progress, the number of connections stays
// within its limit, each request is answered, and connections are reused.
func TestRequestsShareFewConnections(t *testing.T) {
	for _, c := range []struct {
		name   string
		back   backs.Protocol
		server []string
		body   string
	}{
		{"HTTP/1.1", backs.HTTP1, []string{"http/1.1"}, ""},
		{"HTTP/1.1, by ALPN", backs.Auto, []string{"http/1.1"}, ""},
		{"HTTP/2", backs.HTTP2, []string{"h2"}, ""},
		{"HTTP/2, by ALPN", backs.Auto, []string{"h2", "http/1.1"}, ""},
		{"HTTP/1.1 with bodies", backs.HTTP1, []string{"http/1.1"}, strings.Repeat("x", 100_000)},
	} {
		t.Run(c.name, func(t *testing.T) {
			const clients, requests, connections = 30, 15, 2
			w := newTestbed(t)
			server, count := w.counted(echo, c.server...)
			back := w.limited(c.back, upstream.Limits{Connections: connections, Pending: clients, PendingTimeout: time.Hour}, server)
			_, address := w.plain(back)
			var all sync.WaitGroup
			for range clients {
				browser := w.browser()
				all.Go(func() {
					for range requests {
						res, err := browser.Post("http://"+address+"/", "text/plain", strings.NewReader(c.body))
						if err != nil {
							t.Error(err)
							return
						}
						_, err = io.Copy(io.Discard, res.Body)
						res.Body.Close()
						if err != nil || res.StatusCode != 200 {
							t.Errorf("%d, %v", res.StatusCode, err)
							return
						}
					}
				})
			}
			all.Wait()
			if count.most.Load() > connections {
				t.Errorf("%d connections at once", count.most.Load())
			}
			t.Logf("%d requests by %d connections, %d at once", clients*requests, count.made.Load(), count.most.Load())
			eventually(t, "all requests have ended", func() bool { return back.Upstream().Load() == upstream.Load{} })
		})
	}
}

// If all streams of the allowed connections are in use, requests wait and are
// served one after another.
func TestRequestsWaitForAStream(t *testing.T) {
	w, g := newTestbed(t), newGate(t)
	ln := listen(w)
	srv := &http.Server{Handler: g, TLSConfig: w.serverTLS("h2"), HTTP2: &http.HTTP2Config{MaxConcurrentStreams: 3}}
	done := make(chan struct{})
	go func() { defer close(done); _ = srv.ServeTLS(ln, "", "") }()
	w.Cleanup(func() { srv.Close(); <-done })

	back := w.limited(backs.HTTP2, upstream.Limits{Connections: 1, Pending: 20, PendingTimeout: time.Hour}, ln.Addr().String())
	_, address := w.plain(back)
	u := back.Upstream()
	var all sync.WaitGroup
	get := func() {
		all.Go(func() {
			if code, body := w.get(w.browser(), "http://"+address+"/"); code != 200 {
				t.Errorf("%d %q", code, body)
			}
		})
	}
	get() // receives the settings that bound the number of streams
	<-g.came
	g.pass <- struct{}{}
	all.Wait()
	for range 12 {
		get()
	}
	eventually(t, "three are served", func() bool { return u.Load() == upstream.Load{InFlight: 3, Pending: 9} })
	for range 12 {
		g.pass <- struct{}{}
	}
	all.Wait()
	if s := u.Status()[0]; s.Made != 1 {
		t.Errorf("%d connections were made", s.Made)
	}
}

// An upgrade needs its own connection: it evicts an idle connection, but not one in
// use.
func TestUpgradesCountAgainstConnectionLimits(t *testing.T) {
	w := newTestbed(t)
	server := w.raw(w.serverTLS("http/1.1"), func(c net.Conn) {
		for {
			r, err := http.ReadRequest(bufio.NewReader(c))
			if err != nil {
				return
			}
			if r.Header.Get("Upgrade") != "" {
				fmt.Fprint(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: test\r\n\r\n")
				_, _ = io.Copy(io.Discard, c)
				return
			}
			fmt.Fprint(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
		}
	})
	back := w.limited(backs.HTTP1, upstream.Limits{Connections: 1}, server)
	_, address := w.plain(back)
	if code, _ := w.get(w.browser(), "http://"+address+"/"); code != 200 {
		t.Fatalf("%d", code)
	}
	c := w.dial(address)
	c.send("GET / HTTP/1.1", "Host: a", "Connection: upgrade", "Upgrade: test")
	if res, err := http.ReadResponse(c.r, nil); err != nil || res.StatusCode != 101 {
		t.Fatalf("while a connection is idle: %v %v", res, err)
	}
	late := w.dial(address)
	late.send("GET / HTTP/1.1", "Host: a", "Connection: upgrade", "Upgrade: test")
	if res, _ := late.answer(t, "GET"); res.StatusCode != 503 {
		t.Errorf("while the only connection is in use: %d", res.StatusCode)
	}
	c.Close()
	eventually(t, "its place is free", func() bool {
		code, _ := w.get(w.browser(), "http://"+address+"/")
		return code == 200
	})
}

// Idle connections for other hosts are evicted.
func TestConnectionsOfOtherHostsAreEvicted(t *testing.T) {
	w := newTestbed(t)
	client := func(protos ...string) *certs.Client {
		c, err := certs.NewClient(certs.ClientOptions{
			Certificate: certstest.Certificate(w, w.ca.Client(w, "gateway")), Trust: []*certs.TrustBundle{w.ca.Trust(w)},
			FromHost: true, NextProtos: protos,
		})
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	for _, p := range []backs.Protocol{backs.HTTP1, backs.HTTP2} {
		proto := map[backs.Protocol]string{backs.HTTP1: "http/1.1", backs.HTTP2: "h2"}[p]
		back := w.newBack(backs.Options{Protocol: p, TLS: true, Upstream: upstream.New(upstream.Options{
			Name: "up", ConnectTimeout: testTimeout, HandshakeTimeout: testTimeout, Limits: upstream.Limits{ConnectionsPerEndpoint: 1, Pending: 5, PendingTimeout: time.Hour}, Logger: w.logger(hclog.Warn),
			Endpoints: []upstream.EndpointOptions{{Network: "tcp", Address: w.server(echo, proto), Stream: client(), HTTP: client(proto)}},
		})})
		_, address := w.plain(back)
		for range 3 {
			for _, host := range []string{"localhost", "127.0.0.1"} {
				c := w.dial(address)
				c.send("GET / HTTP/1.1", "Host: "+host)
				if res, body := c.answer(t, "GET"); res.StatusCode != 200 {
					t.Errorf("%s, %s: %d %q", proto, host, res.StatusCode, body)
				}
			}
		}
	}
}
