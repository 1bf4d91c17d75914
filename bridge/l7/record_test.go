package l7

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/drawbridge-gateway/drawbridge/bridge/accesslog"
	"github.com/drawbridge-gateway/drawbridge/bridge/l7/backs"
	"github.com/drawbridge-gateway/drawbridge/bridge/logtest"
	"github.com/drawbridge-gateway/drawbridge/bridge/route"
	"github.com/drawbridge-gateway/drawbridge/bridge/upstream"
	"github.com/drawbridge-gateway/drawbridge/certs"
	"github.com/drawbridge-gateway/drawbridge/certs/certstest"
)

// A record is a record of the access log.
type record map[string]any

// recorded is gateway with an access log; end waits for the connections to end,
// and returns the records of their requests by path.
func (w *testbed) recorded(table func() *Table) (s *Server, address string, end func() map[string]record) {
	w.Helper()
	var out logtest.Buffer
	log, err := accesslog.Open(accesslog.Options{Output: &out})
	if err != nil {
		w.Fatal(err)
	}
	ln := listen(w)
	s = New(Options{Listener: "front", Table: table, AccessLog: log, Logger: w.logger(0)})
	done := make(chan error, 1)
	go func() { done <- s.Serve(ln) }()
	shut := func() {
		w.Helper()
		ctx, cancel := context.WithTimeout(context.Background(), testTimeout)
		defer cancel()
		if err := s.Shutdown(ctx); err != nil {
			w.Errorf("Shutdown: %v", err)
		}
		if err := log.Close(ctx); err != nil {
			w.Errorf("Close: %v", err)
		}
	}
	w.Cleanup(func() { shut(); <-done })
	return s, ln.Addr().String(), func() map[string]record {
		w.Helper()
		shut()
		all := map[string]record{}
		for line := range strings.Lines(out.String()) {
			var r record
			if err := json.Unmarshal([]byte(line), &r); err != nil {
				w.Fatalf("%q: %v", line, err)
			}
			path, _ := r["path"].(string)
			if all[path] != nil {
				w.Errorf("two records of %q: %v and %v", path, all[path], r)
			}
			all[path] = r
		}
		return all
	}
}

// want checks that a record has the given values (nil: the field is absent),
// and values above 0 for the fields in positive.
func (r record) want(t *testing.T, want record, positive ...string) {
	t.Helper()
	if r == nil {
		t.Error("there is no record")
		return
	}
	bad := false
	for key, value := range want {
		if n, ok := value.(int); ok {
			value = float64(n)
		}
		if got := r[key]; got != value {
			bad = true
			t.Errorf("%s is %v, want %v", key, got, value)
		}
	}
	for _, key := range positive {
		if n, _ := r[key].(float64); n <= 0 {
			bad = true
			t.Errorf("%s is %v", key, r[key])
		}
	}
	if bad {
		t.Logf("the record: %v", r)
	}
}

// mutual returns a listener's TLS that demands client certificates.
func (w *testbed) mutual(protos ...string) *certs.Servers {
	s, err := certs.NewServer(certs.ServerOptions{
		Certificates: []*certs.Certificate{certstest.Certificate(w, w.ca.Server(w, "localhost", "127.0.0.1"))},
		ClientAuth:   certs.ClientAuthRequired, ClientTrust: []*certs.TrustBundle{w.ca.Trust(w)},
		NextProtos: protos,
	})
	if err != nil {
		w.Fatal(err)
	}
	return certs.NewServers(s)
}

// Both sides use mutual TLS, and the client uses either version of HTTP. The
// client's second connection resumes its session. Its first and second request
// reuse a connection to the upstream.
func TestARecordOfARequestOverTLS(t *testing.T) {
	for _, c := range []struct {
		proto, protocol string
		back            backs.Protocol
		upstream        string
	}{
		{"http/1.1", "HTTP/1.1", backs.HTTP1, "HTTP/1.1"}, {"h2", "HTTP/2.0", backs.HTTP1, "HTTP/1.1"},
		{"http/1.1", "HTTP/1.1", backs.HTTP2, "HTTP/2.0"}, {"h2", "HTTP/2.0", backs.Auto, "HTTP/2.0"},
	} {
		t.Run(c.protocol+" to "+c.upstream, func(t *testing.T) {
			w := newTestbed(t)
			address := w.server(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
				b, _ := io.ReadAll(r.Body)
				fmt.Fprint(rw, "got ", len(b))
			}), "h2", "http/1.1")
			action := to(w.back(c.back, address))
			action.Route = "api"
			s, front, end := w.recorded(fixed(&Table{TLS: w.mutual(c.proto), Routes: w.routes(route.Rule[*Action]{Name: "api", Value: action})}))
			alice := w.ca.Client(w, "alice")
			config := &tls.Config{
				RootCAs: w.ca.Pool(), ServerName: "localhost", Certificates: []tls.Certificate{certstest.TLS(w, alice)},
				ClientSessionCache: tls.NewLRUClientSessionCache(1), MaxVersion: tls.VersionTLS12,
			}
			for _, paths := range [][]string{{"/1"}, {"/2", "/3"}} {
				transport := &http.Transport{TLSClientConfig: config, ForceAttemptHTTP2: c.proto == "h2"}
				for _, path := range paths {
					r, _ := http.NewRequest("POST", "https://"+front+path+"?secret=1", strings.NewReader("hello"))
					r.Host, r.Header = "LOCALHOST:443", http.Header{"User-Agent": {"test\t1"}, "Authorization": {"secret"}, "Cookie": {"secret"}}
					res, err := transport.RoundTrip(r)
					if err != nil {
						t.Fatal(err)
					}
					_, _ = io.Copy(io.Discard, res.Body)
					res.Body.Close()
				}
				transport.CloseIdleConnections()
			}
			all := end()
			for path, r := range all {
				first := path == "/1"
				if first {
					r.want(t, record{"upstream_reused": nil}, "upstream_connect_ms", "upstream_handshake_ms")
				} else {
					r.want(t, record{"upstream_reused": true, "upstream_connect_ms": nil, "upstream_handshake_ms": nil})
				}
				r.want(t, record{
					"kind": "request", "listener": "front", "client": "127.0.0.1", "peer": nil,
					"method": "POST", "host": "localhost", "path": path, "protocol": c.protocol, "user_agent": "test\t1", "code": 200,
					"ended": nil, "reason": nil, "upgrade": nil, "grpc_status": nil, "queued_ms": nil,
					"route": "api", "upstream": "up", "endpoint": address, "upstream_protocol": c.upstream, "attempts": 1,
					"bytes_from_client": 5, "bytes_to_client": 5,
					"server_name": "localhost", "client_subject": "CN=alice", "client_fingerprint": certstest.Certificate(w, alice).Fingerprint(),
					"tls_version": "TLS 1.2", "tls_cipher": "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256", "tls_resumed": !first,
					"upstream_tls_version": "TLS 1.3", "upstream_tls_cipher": "TLS_AES_128_GCM_SHA256", "upstream_tls_group": "X25519MLKEM768", "upstream_tls_resumed": false,
				}, "client_port", "duration_ms", "handshake_ms", "upstream_head_ms")
				if strings.Contains(fmt.Sprint(r), "secret") {
					t.Errorf("a secret is in %v", r)
				}
			}
			if len(all) != 3 || all["/2"]["client_port"] != all["/3"]["client_port"] || all["/1"]["client_port"] == all["/2"]["client_port"] {
				t.Errorf("records %v", all)
			}
			if n := s.Stats().Durations[2].Count(); n != 3 {
				t.Errorf("%d requests are counted", n)
			}
		})
	}
}

// The second connection to the upstream resumes the session.
func TestARecordShowsThatTheUpstreamSessionWasResumed(t *testing.T) {
	w := newTestbed(t)
	_, front, end := w.recorded(fixed(&Table{Default: to(w.back(backs.HTTP1, w.server(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		rw.Header().Set("Connection", "close")
	}))))}))
	for _, path := range []string{"/1", "/2"} {
		w.get(w.browser(), "http://"+front+path)
	}
	all := end()
	all["/1"].want(t, record{"upstream_reused": nil, "upstream_tls_resumed": false, "tls_version": nil, "server_name": nil, "client_subject": nil, "handshake_ms": nil})
	all["/2"].want(t, record{"upstream_reused": nil, "upstream_tls_resumed": true, "upstream_tls_group": "X25519MLKEM768"}, "upstream_handshake_ms")
}

func TestARecordOfARequestThatFailed(t *testing.T) {
	t.Parallel()
	other := newTestbed(t)
	for _, c := range []struct {
		name string
		back func(w *testbed) *backs.Pools
		want record
	}{
		{"connection refused", func(w *testbed) *backs.Pools { return w.back(backs.Auto, w.closed()) },
			record{"code": 502, "reason": "CONNECT_REFUSED", "attempts": 1, "upstream_tls_version": nil, "upstream_protocol": nil, "upstream_head_ms": nil}},
		{"connection refused, twice", func(w *testbed) *backs.Pools { return w.back(backs.HTTP1, w.closed(), w.closed()) },
			record{"code": 502, "reason": "CONNECT_REFUSED", "attempts": 2}},
		{"unknown CA", func(w *testbed) *backs.Pools { return w.back(backs.HTTP1, other.server(echo)) },
			record{"code": 502, "reason": "UNKNOWN_CA", "attempts": 1}},
		{"no endpoint", func(w *testbed) *backs.Pools { return w.back(backs.Auto) },
			record{"code": 503, "reason": "NO_ENDPOINT", "attempts": nil, "endpoint": nil, "upstream": "up"}},
		{"no response", func(w *testbed) *backs.Pools {
			return w.back(backs.HTTP1, w.raw(w.serverTLS(), func(c net.Conn) { _, _ = c.Read(make([]byte, 1)) }))
		}, record{"code": 502, "reason": "RESPONSE_BROKEN", "upstream_tls_version": "TLS 1.3", "upstream_head_ms": nil, "ended": nil}},
		{"no response in time", func(w *testbed) *backs.Pools {
			return w.back(backs.HTTP1, w.raw(w.serverTLS(), func(c net.Conn) { _, _ = io.Copy(io.Discard, c) }))
		}, record{"code": 504, "reason": "RESPONSE_TIMEOUT", "upstream_tls_version": "TLS 1.3", "upstream_head_ms": nil, "ended": nil}},
		{"half a response", func(w *testbed) *backs.Pools {
			return w.back(backs.HTTP1, w.raw(w.serverTLS(), func(c net.Conn) {
				_, _ = c.Read(make([]byte, 1))
				fmt.Fprint(c, "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf")
			}))
		}, record{"code": 200, "reason": "RESPONSE_BROKEN", "ended": "cut off", "bytes_to_client": 4}},
		{"a response that takes too long", func(w *testbed) *backs.Pools {
			return w.newBack(backs.Options{Upstream: plaintext(w.raw(nil, func(c net.Conn) {
				_, _ = c.Read(make([]byte, 1))
				fmt.Fprint(c, "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf")
				_, _ = io.Copy(io.Discard, c)
			}))})
		}, record{"code": 200, "reason": "RESPONSE_TIMEOUT", "ended": "cut off", "bytes_to_client": 4}},
	} {
		t.Run(c.name, func(t *testing.T) {
			withGrowingLimit(t, time.Second, func(limit time.Duration) bool {
				w := newTestbed(t)
				action := to(c.back(w))
				tooEarly := func(record) bool { return false }
				switch c.name {
				case "no response in time":
					action.Forward.Timeout = limit
					tooEarly = func(r record) bool { return r["upstream_tls_version"] == nil }
				case "a response that takes too long":
					action.Forward.TotalTimeout = limit
					tooEarly = func(r record) bool { return r["code"] == 504.0 }
				}
				_, front, end := w.recorded(fixed(&Table{Default: action}))
				if res, err := w.browser().Get("http://" + front + "/"); err == nil {
					_, _ = io.Copy(io.Discard, res.Body)
					res.Body.Close()
				}
				r := end()["/"]
				if tooEarly(r) {
					return false
				}
				r.want(t, c.want, "duration_ms")
				return true
			})
		})
	}
}

func TestRecordOfGatewayAnswers(t *testing.T) {
	w := newTestbed(t)
	exact := func(p string) route.Path { return route.Path{Kind: route.PathExact, Value: p} }
	s, front, end := w.recorded(fixed(&Table{Routes: w.routes(
		route.Rule[*Action]{Name: "hello", Path: exact("/hello"), Value: &Action{Route: "hello", Respond: &Respond{Code: 203, Body: "hello"}}},
	)}))
	c := w.dial(front)
	c.send("GET /hello HTTP/1.1", "Host: a.example", "User-Agent: "+strings.Repeat("x", 5000))
	c.answer(t, "GET")
	c.send("GET /none?token=secret HTTP/1.1", "Host: a.example")
	c.answer(t, "GET")
	c.send("GET /%zz?token=secret HTTP/1.1", "Host: a.example")
	c.answer(t, "GET")
	c.Close()
	c = w.dial(front)
	c.send("GARBAGE")
	c.answer(t, "GET")
	c.Close()
	eventually(t, "all connections have ended", func() bool { return s.Stats().Open == 0 })
	all := end()
	all["/hello"].want(t, record{"code": 203, "route": "hello", "bytes_to_client": 5, "upstream": nil, "attempts": nil, "user_agent": strings.Repeat("x", 1021) + "…", "reason": nil, "ended": nil})
	all["/none"].want(t, record{"code": 404, "route": nil, "host": "a.example", "bytes_to_client": 9})
	all["/%zz"].want(t, record{"code": 400, "host": "a.example", "method": "GET"})
	all[""].want(t, record{"code": 400, "method": nil, "host": nil, "protocol": "HTTP/1.1"})
	if len(all) != 4 || strings.Contains(fmt.Sprint(all), "secret") {
		t.Errorf("records %v", all)
	}
	if d := s.Stats().Durations; d[2].Count() != 1 || d[4].Count() != 3 || s.Stats().Duration != d[2].Total+d[4].Total {
		t.Errorf("durations %+v", d)
	}
}

func TestARecordOfAClientThatLeaves(t *testing.T) {
	w := newTestbed(t)
	arrived := make(chan struct{}, 1)
	back := w.back(backs.HTTP1, w.server(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/middle" {
			fmt.Fprint(rw, "half")
			_ = http.NewResponseController(rw).Flush()
		}
		arrived <- struct{}{}
		<-r.Context().Done()
	})))
	s, front, end := w.recorded(fixed(&Table{Default: to(back)}))
	for _, path := range []string{"/early", "/middle"} {
		c := w.dial(front)
		c.send("GET "+path+" HTTP/1.1", "Host: a.example")
		<-arrived
		if path == "/middle" {
			if _, err := http.ReadResponse(c.r, nil); err != nil {
				t.Fatal(err)
			}
			_, _ = io.ReadFull(c.r, make([]byte, 4))
		}
		_ = c.Conn.(*net.TCPConn).SetLinger(0)
		c.Close()
		eventually(t, "the request has ended", func() bool { return s.Stats().InFlight == 0 })
	}
	all := end()
	all["/early"].want(t, record{"code": 499, "ended": "client gone", "reason": nil, "upstream_head_ms": nil, "attempts": 1, "upstream_tls_version": "TLS 1.3"})
	all["/middle"].want(t, record{"code": 200, "ended": "client gone", "reason": nil, "bytes_to_client": 4}, "upstream_head_ms")
}

func TestARecordCountsAttempts(t *testing.T) {
	w := newTestbed(t)
	_, front, end := w.recorded(fixed(&Table{Default: to(w.back(backs.HTTP1, w.closed(), w.server(echo)))}))
	for _, path := range []string{"/1", "/2"} {
		w.get(w.browser(), "http://"+front+path)
	}
	total := 0.0
	for _, r := range end() {
		r.want(t, record{"code": 200, "reason": nil})
		total += r["attempts"].(float64)
	}
	if total != 3 { // one of the two requests tried the closed endpoint first
		t.Errorf("%v attempts", total)
	}
}

// The record of a request that waited for room at the endpoint says how long it
// waited. The record of a request that could not wait says why it was refused.
func TestARecordOfARequestThatHadToWait(t *testing.T) {
	for p, protocol := range map[backs.Protocol]string{backs.HTTP1: "HTTP/1.1", backs.HTTP2: "HTTP/2.0"} {
		t.Run(protocol, func(t *testing.T) {
			w := newTestbed(t)
			g := newGate(t)
			srv := &http.Server{Handler: g, TLSConfig: w.serverTLS("h2", "http/1.1"), HTTP2: &http.HTTP2Config{MaxConcurrentStreams: 1}}
			ln := listen(w)
			done := make(chan struct{})
			go func() { defer close(done); _ = srv.ServeTLS(ln, "", "") }()
			w.Cleanup(func() { g.all(); srv.Close(); <-done })
			back := w.limited(p, upstream.Limits{Connections: 1, Pending: 1, PendingTimeout: time.Hour}, ln.Addr().String())
			_, front, end := w.recorded(fixed(&Table{Default: to(back)}))
			ask := func(path string) *rawConn {
				c := w.dial(front)
				c.send("GET "+path+" HTTP/1.1", "Host: a.example")
				return c
			}
			before := ask("/before") // its response arrives after the settings that bound the number of streams
			<-g.came
			g.pass <- struct{}{}
			before.answer(t, "GET")
			first := ask("/first")
			<-g.came
			second := ask("/second")
			eventually(t, "the request waits", func() bool { return back.Upstream().Load().Pending == 1 })
			third := ask("/third")
			if res, _ := third.answer(t, "GET"); res.StatusCode != 503 {
				t.Errorf("a request above the limit: %s", res.Status)
			}
			g.all()
			first.answer(t, "GET")
			second.answer(t, "GET")
			all := end()
			all["/first"].want(t, record{"code": 200, "queued_ms": nil, "attempts": 1})
			all["/second"].want(t, record{"code": 200, "attempts": 1, "upstream_reused": true, "upstream_protocol": protocol, "reason": nil}, "queued_ms", "upstream_head_ms")
			all["/third"].want(t, record{"code": 503, "attempts": nil, "reason": "OVERLOADED"})
			if r := all["/second"]; r["queued_ms"].(float64)+r["upstream_head_ms"].(float64) > r["duration_ms"].(float64) {
				t.Errorf("the wait is counted twice: %v", r)
			}
		})
	}
}

// If neither a stream nor a connection was available, no attempt is counted.
func TestARecordCountsNoAttemptWithoutAConnection(t *testing.T) {
	w := newTestbed(t)
	g := newGate(t)
	ln := listen(w)
	srv := &http.Server{Handler: g, TLSConfig: w.serverTLS("h2"), HTTP2: &http.HTTP2Config{MaxConcurrentStreams: 3}}
	done := make(chan struct{})
	go func() { defer close(done); _ = srv.ServeTLS(ln, "", "") }()
	w.Cleanup(func() { g.all(); srv.Close(); <-done })
	back := w.limited(backs.HTTP2, upstream.Limits{Connections: 1, Pending: 20, PendingTimeout: time.Hour}, ln.Addr().String())
	_, front, end := w.recorded(fixed(&Table{Default: to(back)}))
	ask := func(path string) *rawConn {
		c := w.dial(front)
		c.send("GET "+path+" HTTP/1.1", "Host: a.example")
		return c
	}
	before := ask("/before") // its response arrives after the settings that bound the number of streams
	<-g.came
	g.pass <- struct{}{}
	before.answer(t, "GET")
	var waiting []*rawConn
	for i := range 12 {
		waiting = append(waiting, ask(fmt.Sprint("/", i)))
	}
	eventually(t, "nine wait", func() bool { return back.Upstream().Load().Pending == 9 })
	g.all()
	for _, c := range waiting {
		c.answer(t, "GET")
	}
	for _, r := range end() {
		r.want(t, record{"code": 200, "attempts": 1})
	}
}

// A gRPC call always has the code 200; its gRPC status shows the outcome.
func TestARecordOfACallOfGRPC(t *testing.T) {
	w := newTestbed(t)
	back := w.back(backs.HTTP2, w.server(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		rw.Header().Set("Content-Type", "application/grpc")
		if r.URL.Path == "/s/TrailersOnly" {
			rw.Header().Set("Grpc-Status", "5")
			return
		}
		rw.Header().Set("Trailer", "Grpc-Status")
		fmt.Fprint(rw, "\x00\x00\x00\x00\x00")
		rw.Header().Set("Grpc-Status", r.Header.Get("X-Status"))
	}), "h2"))
	none := to(w.back(backs.HTTP2))
	_, front, end := w.recorded(fixed(&Table{TLS: w.listenerTLS("h2"), Default: to(back), Routes: w.routes(
		route.Rule[*Action]{Name: "none", Path: route.Path{Kind: route.PathExact, Value: "/s/Unavailable"}, Value: none})}))
	for path, status := range map[string]string{"/s/OK": "0", "/s/Internal": "13", "/s/TrailersOnly": "", "/s/Unavailable": "", "/s/Odd": "\u200b1"} {
		r, _ := http.NewRequest("POST", "https://"+front+path, strings.NewReader("\x00\x00\x00\x00\x00"))
		r.Header = http.Header{"Content-Type": {"application/grpc"}, "X-Status": {status}}
		res, err := w.browser().Do(r)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, res.Body)
		res.Body.Close()
	}
	all := end()
	for path, want := range map[string]int{"/s/OK": 0, "/s/Internal": 13, "/s/TrailersOnly": 5, "/s/Unavailable": 14} {
		all[path].want(t, record{"code": 200, "grpc_status": want, "protocol": "HTTP/2.0"})
	}
	all["/s/Unavailable"].want(t, record{"reason": "NO_ENDPOINT"})
}

// The table that is live when a request ends decides whether the request is
// logged, even on a connection that was open before.
func TestAccessLogIsSwitchedOffWithoutTouchingConnections(t *testing.T) {
	w := newTestbed(t)
	back := to(w.back(backs.HTTP1, w.server(echo)))
	var table atomic.Pointer[Table]
	table.Store(&Table{Default: back})
	s, front, end := w.recorded(table.Load)
	c := w.dial(front)
	for i, off := range []bool{false, true, false} {
		table.Store(&Table{Default: back, NoAccessLog: off})
		c.send(fmt.Sprintf("GET /%d HTTP/1.1", i), "Host: a.example")
		if res, _ := c.answer(t, "GET"); res.StatusCode != 200 {
			t.Fatal(res.Status)
		}
		eventually(t, "the request has ended", func() bool { return s.Stats().Requests[200] == uint64(i+1) })
	}
	all := end()
	if len(all) != 2 || all["/0"] == nil || all["/2"] == nil || all["/0"]["client_port"] != all["/2"]["client_port"] {
		t.Errorf("records %v", all)
	}
}

func TestARecordOfAnAnnouncedClient(t *testing.T) {
	w := newTestbed(t)
	_, front, end := w.recorded(fixed(&Table{ProxyProtocol: w.trust("127.0.0.1")}))
	c := w.dial(front)
	fmt.Fprint(c, "PROXY TCP4 192.0.2.7 198.51.100.1 4711 443\r\n")
	c.send("GET / HTTP/1.1", "Host: a.example")
	c.answer(t, "GET")
	end()["/"].want(t, record{"client": "192.0.2.7", "client_port": 4711, "peer": c.LocalAddr().String()})
}

// The record names the client given by a trusted proxy, and the proxy as the
// peer.
func TestARecordOfAClientBehindAProxy(t *testing.T) {
	w := newTestbed(t)
	_, front, end := w.recorded(fixed(&Table{TrustedProxies: peers(t, "127.0.0.1"), RequestIDField: "X-Request-Id", Default: to(w.back(backs.HTTP1, w.server(echo)))}))
	c := w.dial(front)
	c.send("GET / HTTP/1.1", "Host: a.example", "X-Forwarded-For: 192.0.2.7", "X-Request-Id: r-1", "Traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")
	c.answer(t, "GET")
	end()["/"].want(t, record{"client": "192.0.2.7", "client_port": nil, "peer": c.LocalAddr().String(),
		"request_id": "r-1", "trace_id": "4bf92f3577b34da6a3ce929d0e0e4736"})
}

// The response times of upstreams are counted with and without an access log.
func TestResponseTimesAreCounted(t *testing.T) {
	w := newTestbed(t)
	for _, p := range []backs.Protocol{backs.HTTP1, backs.HTTP2} {
		var counted upstream.Latencies
		back := w.newBack(backs.Options{Protocol: p, TLS: true, Upstream: upstream.New(upstream.Options{Name: "up", ConnectTimeout: testTimeout, HandshakeTimeout: testTimeout, Latencies: &counted,
			Endpoints: []upstream.EndpointOptions{{Network: "tcp", Address: w.server(echo, "h2", "http/1.1"), HTTP: w.client(map[backs.Protocol]string{backs.HTTP1: "http/1.1", backs.HTTP2: "h2"}[p])}}})})
		_, front := w.plain(back)
		for range 3 {
			w.get(w.browser(), "http://"+front+"/")
		}
		heads, connects, shakes := counted.Head.Counts(), counted.Connect.Counts(), counted.Handshake.Counts()
		if heads.Count() != 3 || heads.Total <= 0 || connects.Count() != 1 || shakes.Count() != 1 {
			t.Errorf("%v: heads %+v, connects %+v, handshakes %+v", p, heads, connects, shakes)
		}
	}
}
