package l7

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/drawbridge-gateway/drawbridge/bridge/l7/backs"
	"github.com/drawbridge-gateway/drawbridge/bridge/l7/policy"
	"github.com/drawbridge-gateway/drawbridge/bridge/route"
	"github.com/drawbridge-gateway/drawbridge/bridge/upstream"
	"github.com/drawbridge-gateway/drawbridge/certs"
)

func TestRequestsReachUpstreamsOverMutualTLS(t *testing.T) {
	for _, c := range []struct {
		protocol backs.Protocol
		server   []string
		proto    string
	}{
		{backs.HTTP1, []string{"h2", "http/1.1"}, "HTTP/1.1"},
		{backs.HTTP2, []string{"h2", "http/1.1"}, "HTTP/2.0"},
		{backs.Auto, []string{"h2", "http/1.1"}, "HTTP/2.0"},
		{backs.Auto, []string{"http/1.1"}, "HTTP/1.1"},
		{backs.Auto, nil, "HTTP/1.1"},
	} {
		for _, scheme := range []string{"http", "https"} {
			t.Run(fmt.Sprint(c.protocol, c.server, scheme), func(t *testing.T) {
				w := newTestbed(t)
				back := w.back(c.protocol, w.server(echo, c.server...))
				table := &Table{Default: to(back)}
				if scheme == "https" {
					table.TLS = w.listenerTLS("h2", "http/1.1")
				}
				s, address := w.gateway(fixed(table))
				browser := w.browser()
				for range 3 {
					res, err := browser.Post(scheme+"://"+address+"/a/%2e%2e//b?q=1;x&%zz", "text/plain", strings.NewReader("hello"))
					if err != nil {
						t.Fatal(err)
					}
					b, _ := io.ReadAll(res.Body)
					res.Body.Close()
					if want := c.proto + " POST " + address + " /b?q=1;x&%zz by gateway: hello"; string(b) != want {
						t.Errorf("%d %q, want %q", res.StatusCode, b, want)
					}
					if want := map[string]int{"http": 1, "https": 2}[scheme]; res.ProtoMajor != want {
						t.Errorf("client spoke HTTP/%d, want %d", res.ProtoMajor, want)
					}
				}
				eventually(t, "requests are counted", func() bool { return s.Stats().Requests[200] == 3 && s.Stats().InFlight == 0 })
				if st := back.Upstream().Status()[0]; st.Requests != 3 || st.Made != 1 {
					t.Errorf("upstream counts %d requests on %d connections", st.Requests, st.Made)
				}
				st := s.Stats()
				if st.Accepted != 1 || st.Open != 1 || st.BytesFromClient == 0 || st.BytesToClient == 0 || st.Duration <= 0 {
					t.Errorf("%+v", st)
				}
				if want := uint64(map[string]int{"http": 0, "https": 1}[scheme]); st.HandshakesFull != want {
					t.Errorf("%d handshakes, want %d", st.HandshakesFull, want)
				}
			})
		}
	}
}

func TestPlaintextUpstreams(t *testing.T) {
	for _, p := range []backs.Protocol{backs.Auto, backs.HTTP1, backs.HTTP2} {
		w := newTestbed(t)
		ln := listen(t)
		srv := &http.Server{Handler: echo, Protocols: new(http.Protocols)}
		srv.Protocols.SetHTTP1(p != backs.HTTP2)
		srv.Protocols.SetUnencryptedHTTP2(p == backs.HTTP2)
		go srv.Serve(ln)
		t.Cleanup(func() { srv.Close() })
		up := upstream.New(upstream.Options{Name: "up", ConnectTimeout: testTimeout, HandshakeTimeout: testTimeout, Endpoints: []upstream.EndpointOptions{{Network: "tcp", Address: ln.Addr().String()}}})
		_, address := w.plain(w.newBack(backs.Options{Upstream: up, Protocol: p, SendUpstreamHost: true, Host: "inner.example"}))
		want := "HTTP/1.1 GET inner.example / by : "
		if p == backs.HTTP2 {
			want = "HTTP/2.0 GET inner.example / by : "
		}
		if code, body := w.get(w.browser(), "http://"+address+"/"); code != 200 || body != want {
			t.Errorf("%v: %d %q, want %q", p, code, body, want)
		}
	}
}

func TestActions(t *testing.T) {
	w := newTestbed(t)
	back := w.back(backs.HTTP1, w.server(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		rw.Header().Set("Server", "secret")
		fmt.Fprint(rw, r.Header["X-A"], r.Header["X-B"], r.Header["X-C"])
	})))
	rules := to(back)
	rules.RequestHeaders = policy.HeaderRules{Remove: []string{"x-a"}, Set: values("x-b: 2"), Add: values("X-C: 3", "X-C: 4", "Host: evil", "Connection: X-B")}
	rules.ResponseHeaders = policy.HeaderRules{Remove: []string{"server"}, Set: values("X-Gateway: 1")}
	exact := func(p string) route.Path { return route.Path{Kind: route.PathExact, Value: p} }
	_, address := w.gateway(fixed(&Table{Routes: w.routes(
		route.Rule[*Action]{Name: "redirect", Path: exact("/old"), Value: &Action{Redirect: &Redirect{}}},
		route.Rule[*Action]{Name: "https", Path: exact("/tls"), Value: &Action{Redirect: &Redirect{Code: 308, Scheme: "https"}}},
		route.Rule[*Action]{Name: "moved", Path: exact("/moved"), Value: &Action{Redirect: &Redirect{Code: 301, Host: "new.example:8443", Path: "/x"}}},
		route.Rule[*Action]{Name: "respond", Path: exact("/fixed"), Value: &Action{Respond: &Respond{Code: 418, Body: "short", ContentType: "text/x"}, ResponseHeaders: rules.ResponseHeaders}},
		route.Rule[*Action]{Name: "empty", Path: exact("/empty"), Value: &Action{Respond: &Respond{Code: 204, Body: "ignored"}}},
		route.Rule[*Action]{Name: "rules", Path: exact("/rules"), Value: rules},
	)}))
	browser := w.browser()
	for path, want := range map[string]string{
		"/old?a=b": "302 http://" + address + "/old?a=b ",
		"/tls?a=b": "308 https://127.0.0.1/tls?a=b ",
		"/moved?a": "301 http://new.example:8443/x ",
		"/fixed":   "418  short",
		"/empty":   "204  ",
		"/rules":   "200  [] [2] [1 3 4]",
		"/none":    "404  no route\n",
	} {
		r, _ := http.NewRequest("GET", "http://"+address+path, nil)
		r.Header = http.Header{"X-A": {"1"}, "X-B": {"1"}, "X-C": {"1"}}
		res, err := browser.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		b, _ := io.ReadAll(res.Body)
		res.Body.Close()
		if got := fmt.Sprintf("%d %s %s", res.StatusCode, res.Header.Get("Location"), b); got != want {
			t.Errorf("%s: %q, want %q", path, got, want)
		}
		if marked := path == "/rules" || path == "/fixed"; (res.Header.Get("X-Gateway") == "1") != marked || res.Header.Get("Server") != "" {
			t.Errorf("%s: header %v", path, res.Header)
		}
	}
}

func TestConnectFailuresTryTheNextEndpoint(t *testing.T) {
	w := newTestbed(t)
	notTLS := w.raw(nil, func(c net.Conn) {
		fmt.Fprint(c, "HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\nspoofed")
		_, _ = io.Copy(io.Discard, c)
	})
	back := w.back(backs.Auto, w.closed(), notTLS, w.server(echo))
	_, address := w.plain(back)
	for range 6 {
		res, err := w.browser().Post("http://"+address+"/", "text/plain", strings.NewReader(strings.Repeat("x", 100000)))
		if err != nil {
			t.Fatal(err)
		}
		b, _ := io.ReadAll(res.Body)
		res.Body.Close()
		if res.StatusCode != 200 || !strings.HasSuffix(string(b), strings.Repeat("x", 100000)) {
			t.Errorf("%d, %d bytes", res.StatusCode, len(b))
		}
	}
}

func TestFailuresAreAnsweredBrieflyAndLoggedWithTheirReason(t *testing.T) {
	other := newTestbed(t)
	for _, c := range []struct {
		name   string
		back   func(w *testbed) *backs.Pools
		code   int
		grpc   string
		reason certs.Reason
	}{
		{"connection refused", func(w *testbed) *backs.Pools { return w.back(backs.Auto, w.closed()) }, 502, "14", certs.ReasonConnectRefused},
		{"unknown CA", func(w *testbed) *backs.Pools { return w.back(backs.Auto, other.server(echo)) }, 502, "14", certs.ReasonUnknownCA},
		{"early plaintext", func(w *testbed) *backs.Pools {
			return w.back(backs.Auto, w.raw(nil, func(c net.Conn) {
				fmt.Fprint(c, "HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\nspoofed")
				_, _ = io.Copy(io.Discard, c)
			}))
		}, 502, "14", certs.ReasonNotTLS},
		{"no endpoint", func(w *testbed) *backs.Pools { return w.back(backs.Auto) }, 503, "14", certs.ReasonNoEndpoint},
		{"client certificate required, HTTP/1.1", func(w *testbed) *backs.Pools { return w.anonymous(backs.HTTP1, w.server(echo, "http/1.1")) }, 502, "14", certs.ReasonClientCertificateRequired},
		{"client certificate required, HTTP/2", func(w *testbed) *backs.Pools { return w.anonymous(backs.HTTP2, w.server(echo, "h2")) }, 502, "14", certs.ReasonClientCertificateRequired},
		{"no answer", func(w *testbed) *backs.Pools {
			return w.back(backs.HTTP1, w.raw(w.serverTLS(), func(c net.Conn) { _, _ = c.Read(make([]byte, 1)) }))
		}, 502, "14", certs.ReasonResponseBroken},
		{"no HTTP", func(w *testbed) *backs.Pools {
			return w.back(backs.HTTP1, w.raw(w.serverTLS(), func(c net.Conn) {
				_, _ = c.Read(make([]byte, 1))
				fmt.Fprint(c, "220 smtp\r\n\r\n")
			}))
		}, 502, "14", certs.ReasonResponseBroken},
		{"a plaintext upstream where TLS is expected", func(w *testbed) *backs.Pools {
			return w.backWith(backs.HTTP1, nil, w.raw(nil, func(c net.Conn) { _, _ = io.Copy(c, c) }))
		}, 502, "14", certs.ReasonLocalConfig},
		{"HTTP/1.1 wanted", func(w *testbed) *backs.Pools {
			return w.withProtos(backs.HTTP1, []string{"h2", "http/1.1"}, w.server(echo, "h2"))
		}, 502, "14", certs.ReasonALPNMismatch},
		{"HTTP/2 wanted", func(w *testbed) *backs.Pools { return w.withProtos(backs.HTTP2, nil, w.server(echo)) }, 502, "14", certs.ReasonALPNMismatch},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newTestbed(t)
			back := c.back(w)
			_, address := w.plain(back)
			begun := time.Now()
			code, body := w.get(w.browser(), "http://"+address+"/")
			if want := map[int]string{502: "bad gateway\n", 503: "service unavailable\n"}[c.code]; code != c.code || body != want {
				t.Errorf("%d %q, want %d %q", code, body, c.code, want)
			}
			eventually(t, "the log has the line", func() bool {
				// On HTTP/2, a write may fail before the alert with the cause is read. Then
				// the reason is RESPONSE_BROKEN.
				w.get(w.browser(), "http://"+address+"/")
				return strings.Contains(w.log.String(), "request failed") && strings.Contains(w.log.String(), "reason="+string(c.reason))
			})
			r, _ := http.NewRequest("POST", "http://"+address+"/pkg.Service/Method", nil)
			r.Header.Set("Content-Type", "application/grpc+proto")
			res, err := w.browser().Do(r)
			if err != nil {
				t.Fatal(err)
			}
			res.Body.Close()
			if res.StatusCode != 200 || res.Header.Get("Grpc-Status") != c.grpc || res.Header.Get("Content-Type") != "application/grpc" {
				t.Errorf("gRPC: %d %v", res.StatusCode, res.Header)
			}
			if st := back.Upstream().Status(); len(st) > 0 && st[0].Failures[c.reason] == 0 {
				t.Errorf("the failure is not recorded: %v", st[0].Failures)
			}
			n := 0
			for line := range strings.Lines(w.log.String()) {
				if strings.Contains(line, "request failed") && strings.Contains(line, "reason="+string(c.reason)) {
					n++
				}
			}
			if took := time.Since(begun); n < 1 || n > 1+int(took/(10*time.Second)) { // equal failures are logged every 10 s
				t.Errorf("logged %d times within %v: %s", n, took, w.log.String())
			}
		})
	}
}

// anonymous returns a Back without a client certificate.
func (w *testbed) anonymous(p backs.Protocol, address string) *backs.Pools {
	protos := map[backs.Protocol]string{backs.HTTP1: "http/1.1", backs.HTTP2: "h2"}
	c, err := certs.NewClient(certs.ClientOptions{Trust: []*certs.TrustBundle{w.ca.Trust(w)}, ServerName: "localhost", NextProtos: []string{protos[p]}})
	if err != nil {
		w.Fatal(err)
	}
	return w.backWith(p, c, address)
}

// withProtos returns a Back that offers protos.
func (w *testbed) withProtos(p backs.Protocol, protos []string, address string) *backs.Pools {
	return w.backWith(p, w.client(protos...), address)
}

func (w *testbed) backWith(p backs.Protocol, c *certs.Client, address string) *backs.Pools {
	return w.newBack(backs.Options{Protocol: p, TLS: true, Upstream: upstream.New(upstream.Options{
		Name: "up", ConnectTimeout: testTimeout, HandshakeTimeout: testTimeout, Logger: w.logger(hclog.Warn),
		Endpoints: []upstream.EndpointOptions{{Network: "tcp", Address: address, Stream: c, HTTP: c}},
	})})
}

// If the upstream or the client takes too long, the response is cut off and does
// not look complete.
func TestTotalDeadline(t *testing.T) {
	t.Parallel()
	for _, p := range []backs.Protocol{backs.HTTP1, backs.HTTP2} {
		schemes(t, func(t *testing.T, w *testbed, table *Table, scheme string) {
			t.Parallel()
			withGrowingLimit(t, time.Second, func(limit time.Duration) bool {
				table := *table
				return totalDeadline(t, w, &table, scheme, p, limit)
			})
		})
	}
}

func totalDeadline(t *testing.T, w *testbed, table *Table, scheme string, p backs.Protocol, limit time.Duration) (inTime bool) {
	begun, ended := make(chan struct{}, 10), make(chan struct{}, 10)
	table.Default = to(w.back(p, w.server(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		begun <- struct{}{}
		defer func() { ended <- struct{}{} }()
		if r.URL.Path == "/endless" {
			for err := error(nil); err == nil; {
				_, err = rw.Write(make([]byte, 64<<10))
			}
			return
		}
		if r.URL.Path == "/slow" {
			fmt.Fprint(rw, "so far")
			_ = http.NewResponseController(rw).Flush()
		}
		<-r.Context().Done()
	}), "h2", "http/1.1")))
	table.Default.Forward.TotalTimeout = limit
	s, address := w.gateway(fixed(table))
	c := w.browser()
	if code, body := w.get(c, scheme+"://"+address+"/"); code != 504 || body != "gateway timeout\n" {
		t.Errorf("%v, %s: %d %q", p, scheme, code, body)
	}
	if len(begun) == 0 {
		return false // the deadline passed before the request reached the upstream
	}
	<-ended
	for path, want := range map[string]string{"/slow": "so far", "/endless": ""} {
		res, err := c.Get(scheme + "://" + address + path)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		if res.StatusCode == 504 {
			return false
		}
		if path == "/endless" { // the client does not read it until the upstream has sent it
			<-ended
		}
		got, err := io.ReadAll(res.Body)
		if err != nil && path == "/slow" && len(got) == 0 {
			return false // the deadline passed between the header and the body
		}
		if err == nil || want != "" && string(got) != want {
			t.Errorf("%v, %s: %s ended as complete: %d bytes, %v", p, scheme, path, len(got), err)
		}
		res.Body.Close()
		if path != "/endless" {
			<-ended
		}
	}
	eventually(t, "no request is in progress", func() bool { return s.Stats().InFlight == 0 })
	return true
}

func TestResponseHeaderDeadline(t *testing.T) {
	withGrowingLimit(t, 300*time.Millisecond, func(limit time.Duration) bool { return headerDeadline(t, limit) })
}

func headerDeadline(t *testing.T, limit time.Duration) (inTime bool) {
	w := newTestbed(t)
	release := make(chan struct{})
	back := w.back(backs.Auto, w.server(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/slow-body" {
			_ = http.NewResponseController(rw).Flush()
		}
		<-release
		fmt.Fprint(rw, "late")
	}), "h2"))
	action := to(back)
	action.Forward.Timeout = limit
	_, address := w.gateway(fixed(&Table{Default: action}))
	slow := make(chan string)
	go func() {
		res, err := w.browser().Get("http://" + address + "/slow-body")
		if err != nil {
			slow <- err.Error()
			return
		}
		defer res.Body.Close()
		b, _ := io.ReadAll(res.Body)
		slow <- string(b)
	}()
	if code, body := w.get(w.browser(), "http://"+address+"/"); code != 504 || body != "gateway timeout\n" {
		t.Errorf("%d %q", code, body)
	}
	close(release)
	b := <-slow
	if b == "gateway timeout\n" {
		return false
	}
	if b != "late" {
		t.Errorf("a response whose header came in time ended as %q", b)
	}
	return true
}
