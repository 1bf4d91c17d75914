// Failure drills for incomplete responses, streams that are reset, groups
// without a live endpoint, and full queues.

package e2e

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

// connKey is the context key of a request's connection.
type connKey struct{}

func TestDrillAnEndpointDiesInTheMiddleOfAResponse(t *testing.T) {
	a := newAuthority(t)
	const whole, half = 100_000, 50_000
	got := make(chan struct{}) // closed once the client has half of a response
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/sized" {
			w.Header().Set("Content-Length", fmt.Sprint(whole))
		}
		_, _ = w.Write(bytes.Repeat([]byte("x"), half))
		_ = http.NewResponseController(w).Flush()
		<-got
		_ = r.Context().Value(connKey{}).(*tls.Conn).NetConn().Close() // no close_notify, no end of a stream
	}))
	s.TLS, s.EnableHTTP2 = a.serverConfig(t), true
	s.Config.ConnContext = func(ctx context.Context, c net.Conn) context.Context {
		return context.WithValue(ctx, connKey{}, c)
	}
	s.StartTLS()
	t.Cleanup(func() { s.CloseClientConnections(); s.Close() })

	records := filepath.Join(t.TempDir(), "access.log")
	g := startGateway(t, "--log-level", "warn", "--access-log", records)
	address := s.Listener.Addr().String()
	one, two := upstream("one", a.settings(), address), upstream("two", a.settings(), address)
	one.Http = &adminv1.UpstreamHttp{Protocol: adminv1.HttpProtocol_HTTP_PROTOCOL_1_1}
	two.Http = &adminv1.UpstreamHttp{Protocol: adminv1.HttpProtocol_HTTP_PROTOCOL_2}
	web := listener("web", protocolHTTP, "")
	web.Tls = &adminv1.ServerTls{Certificates: []string{"front"}}
	g.apply(trustBundle("ca", a.ca), certificate("client", a.client), certificate("front", a.server), one, two, web)

	n := 0
	for _, u := range []string{"one", "two"} {
		// A request is not retried after the client has received a part of the
		// response.
		g.apply(retried("all", "web", "/", u, &adminv1.Retry{Attempts: new(int32(5)), Codes: []int32{502}}))
		for _, version := range []string{"HTTP/1.1", "HTTP/2.0"} {
			for _, path := range []string{"/sized", "/unsized"} {
				n++
				transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool(a.ca), ServerName: serverName}, ForceAttemptHTTP2: version == "HTTP/2.0"}
				t.Cleanup(transport.CloseIdleConnections)
				req, _ := http.NewRequestWithContext(longContext(t), http.MethodGet, "https://"+g.address("web")+path, nil)
				resp, err := transport.RoundTrip(req)
				if err != nil {
					t.Fatal(err)
				}
				_, err = io.ReadFull(resp.Body, make([]byte, half))
				got <- struct{}{}
				if err != nil || resp.StatusCode != 200 || resp.Proto != version {
					t.Fatalf("%s: %s %d, %v", path, resp.Proto, resp.StatusCode, err)
				}
				rest, err := io.ReadAll(resp.Body)
				_ = resp.Body.Close()
				t.Logf("upstream %s, client %s, %-8s: %d of %d bytes, then: %v", u, version, path, half+len(rest), whole, err)
				if err == nil {
					t.Errorf("upstream %s, client %s, %s: the response looked complete to the client", u, version, path)
				}
			}
		}
	}
	var lines []string
	eventually(t, "every record is written", func() bool {
		text, _ := os.ReadFile(records)
		lines = strings.Split(strings.TrimSpace(string(text)), "\n")
		return strings.Count(string(text), "\n") == n
	})
	for _, line := range lines {
		var r map[string]any
		if err := json.Unmarshal([]byte(line), &r); err != nil || r["reason"] != "RESPONSE_BROKEN" || r["ended"] != "cut off" || r["attempts"] != 1.0 {
			t.Errorf("%v: %s", err, line)
		}
	}
}

// refuseEachTenth serves HTTP/2 and refuses every tenth stream, counted over
// all connections, without processing it.
func refuseEachTenth(streams, refused *atomic.Int64) func(net.Conn) {
	return func(conn net.Conn) {
		if _, err := io.ReadFull(conn, make([]byte, len(http2.ClientPreface))); err != nil {
			return
		}
		framer := http2.NewFramer(conn, conn)
		_ = framer.WriteSettings()
		var head bytes.Buffer
		fields := hpack.NewEncoder(&head)
		for {
			f, err := framer.ReadFrame()
			if err != nil {
				return
			}
			switch f := f.(type) {
			case *http2.SettingsFrame:
				if !f.IsAck() {
					_ = framer.WriteSettingsAck()
				}
			case *http2.PingFrame:
				if !f.IsAck() {
					_ = framer.WritePing(true, f.Data)
				}
			case *http2.HeadersFrame:
				if streams.Add(1)%10 == 0 {
					refused.Add(1)
					_ = framer.WriteRSTStream(f.StreamID, http2.ErrCodeRefusedStream)
					continue
				}
				head.Reset()
				_ = fields.WriteField(hpack.HeaderField{Name: ":status", Value: "200"})
				_ = framer.WriteHeaders(http2.HeadersFrameParam{StreamID: f.StreamID, BlockFragment: head.Bytes(), EndHeaders: true, EndStream: true})
			}
		}
	}
}

// resetEachTenth serves HTTP/1.1 and resets the connection instead of every
// tenth response.
func resetEachTenth(requests, reset *atomic.Int64) func(net.Conn) {
	return func(conn net.Conn) {
		for in := bufio.NewReader(conn); ; {
			if _, err := http.ReadRequest(in); err != nil {
				return
			}
			if requests.Add(1)%10 == 0 {
				reset.Add(1)
				_ = conn.(*tls.Conn).NetConn().(*net.TCPConn).SetLinger(0)
				return
			}
			if _, err := io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"); err != nil {
				return
			}
		}
	}
}

func TestDrillEachTenthStreamIsReset(t *testing.T) {
	const clients, requests = 16, 2000
	a := newAuthority(t)
	for _, c := range []struct {
		protocol, method string
		handle           func(all, broken *atomic.Int64) func(net.Conn)
	}{
		{"h2", "POST", refuseEachTenth}, // a refused stream was not processed, so any method may be retried
		{"http/1.1", "GET", resetEachTenth},
	} {
		t.Run(strings.ReplaceAll(c.protocol, "/", ""), func(t *testing.T) {
			var all, broken atomic.Int64
			config := a.serverConfig(t)
			config.NextProtos = []string{c.protocol}
			address := serveConns(t, config, c.handle(&all, &broken))
			plain, again := upstream("plain", a.settings(), address), upstream("again", a.settings(), address)
			again.Limits = &adminv1.UpstreamLimits{RetryBudget: &adminv1.RetryBudget{MinRetries: proto.Int32(clients)}}
			g := startGateway(t, "--log-level", "warn")
			g.apply(trustBundle("ca", a.ca), certificate("client", a.client), plain, again, listener("web", protocolHTTP, ""),
				forward("plain", "web", "/plain", "plain"),
				retried("again", "web", "/again", "again", &adminv1.Retry{Attempts: new(int32(10)), Backoff: durationpb.New(time.Millisecond)}))
			for _, name := range []string{"plain", "again"} {
				all.Store(0)
				broken.Store(0)
				l := newLoad(t, clients, func() *http.Request {
					req, _ := http.NewRequest(c.method, "http://"+g.address("web")+"/"+name, nil)
					return req
				}, upTo(requests))
				l.run(t, clients)
				_, failed := l.sent("")
				s := g.upstream(name)
				t.Logf("%s, %s: %s failed, where %d of %d tries were reset; %d retries, %d refused by the budget; %s",
					name, c.method, share(failed, requests), broken.Load(), all.Load(), s.GetRetries(), s.GetRetriesRefused(), l.quantiles())
				// Without a policy, a refused stream is still sent once more,
				// and so is a request that fails on a reused connection.
				// Neither counts as a retry.
				retries, resets := s.GetRetries(), int64(broken.Load())
				switch {
				case name == "plain":
					if retries > 0 {
						t.Errorf("%d retries without a policy", retries)
					}
				case failed > 0 || resets < requests/10 || retries == 0 || retries > resets || c.protocol == "h2" && retries != resets:
					t.Errorf("%d failed, %d resets, %d retries; codes %v", failed, resets, retries, l.codes)
				}
			}
		})
	}
}

// reserve binds a port that the kernel chooses. Connections are refused until
// listen is called.
func reserve(t testing.TB) (address string, listen func() net.Listener) {
	t.Helper()
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	syscall.CloseOnExec(fd)
	file := os.NewFile(uintptr(fd), "reserved")
	t.Cleanup(func() { _ = file.Close() })
	if err := syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	name, err := syscall.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("127.0.0.1:%d", name.(*syscall.SockaddrInet4).Port), func() net.Listener {
		if err := syscall.Listen(fd, 128); err != nil {
			t.Fatal(err)
		}
		ln, err := net.FileListener(file)
		if err != nil {
			t.Fatal(err)
		}
		return ln
	}
}

func TestDrillAllEndpointsAreDown(t *testing.T) {
	const interval = 200 * time.Millisecond
	a := newAuthority(t)
	var addresses []string
	var listens []func() net.Listener
	for range 3 {
		address, listen := reserve(t)
		addresses, listens = append(addresses, address), append(listens, listen)
	}
	plain, checked, ejecting := upstream("plain", a.settings(), addresses...), upstream("checked", a.settings(), addresses...), upstream("ejecting", a.settings(), addresses...)
	checked.HealthCheck = &adminv1.HealthCheck{Kind: &adminv1.HealthCheck_Tls{Tls: &adminv1.TlsCheck{}}, Interval: durationpb.New(interval), HealthyThreshold: new(int32(1))}
	ejecting.OutlierDetection = &adminv1.OutlierDetection{ConsecutiveFailures: proto.Int32(3), MaxEjectedPercent: proto.Int32(100)}
	g := startGateway(t, "--log-level", "warn")
	resources := []proto.Message{trustBundle("ca", a.ca), certificate("client", a.client), plain, checked, ejecting, listener("web", protocolHTTP, "")}
	names := []string{"plain", "checked", "ejecting"}
	for _, name := range names {
		resources = append(resources, retried(name, "web", "/"+name, name, &adminv1.Retry{Attempts: new(int32(3)), Backoff: durationpb.New(time.Millisecond)}))
	}
	g.apply(resources...)
	eventually(t, "the checks have run", func() bool {
		for _, e := range g.upstream("checked").GetEndpoints() {
			if !e.GetCheck().GetChecked() {
				return false
			}
		}
		return true
	})
	for _, name := range names {
		l := gets(t, 8, "http://"+g.address("web")+"/"+name, upTo(200))
		l.run(t, 8)
		t.Logf("%s, all down: %v; %s", name, l.codes[""], l.quantiles())
		if n := l.codes[""]; n[502]+n[503] != 200 || name == "checked" && n[503] != 200 {
			t.Errorf("%s: %v", name, n)
		}
		for _, e := range g.upstream(name).GetEndpoints() {
			t.Logf("  %s: available %t, %q, %v", e.GetAddress(), e.GetAvailable(), e.GetUnavailableReason(), e.GetLastFailure().GetReason())
			if name == "checked" {
				if e.GetAvailable() || e.GetCheck().GetReason() != adminv1.Reason_REASON_CONNECT_REFUSED || !strings.Contains(e.GetUnavailableReason(), "fails its health check: CONNECT_REFUSED") {
					t.Errorf("its check: %v", e.GetCheck())
				}
			} else if e.GetLastFailure().GetReason() != adminv1.Reason_REASON_CONNECT_REFUSED || e.GetHealth() != adminv1.EndpointHealth_ENDPOINT_HEALTH_DOWN {
				t.Errorf("%s: %v", name, e)
			}
		}
	}

	back := time.Now()
	for i, listen := range listens {
		s := httptest.NewUnstartedServer(answers(fmt.Sprint(i)))
		_ = s.Listener.Close()
		s.Listener, s.TLS, s.EnableHTTP2 = listen(), a.serverConfig(t), true
		s.StartTLS()
		t.Cleanup(func() { s.CloseClientConnections(); s.Close() })
	}
	for _, name := range names {
		eventually(t, name+" is served again", func() bool {
			code, _ := get(t, "http://"+g.address("web")+"/"+name)
			return code == 200
		})
		took := time.Since(back)
		eventually(t, "all endpoints take traffic", func() bool {
			for _, e := range g.upstream(name).GetEndpoints() {
				if !e.GetAvailable() && name == "checked" {
					return false
				}
			}
			return true
		})
		l := gets(t, 8, "http://"+g.address("web")+"/"+name, upTo(200))
		l.run(t, 8)
		t.Logf("%s: served again %v after the endpoints are back (a check is made each %v); then %v", name, took.Round(time.Millisecond), interval, l.by)
		if _, failed := l.sent(""); failed > 0 {
			t.Errorf("%s: %d failed once the endpoints are back", name, failed)
		}
	}
}

func TestDrillAQueueIsFull(t *testing.T) {
	const clients, atOnce, waiting = 100, 10, 20
	a := newAuthority(t)
	release := make(chan struct{})
	open := sync.OnceFunc(func() { close(release) })
	defer open()
	u := upstream("web", a.settings(), serveHTTPS(t, a.serverConfig(t), func(w http.ResponseWriter, r *http.Request) {
		<-release
		answers("it")(w, r)
	}))
	u.Limits = &adminv1.UpstreamLimits{Requests: atOnce, Pending: waiting, PendingTimeout: durationpb.New(time.Hour)}
	g := startGateway(t, "--log-level", "warn")
	g.apply(trustBundle("ca", a.ca), certificate("client", a.client), u, listener("web", protocolHTTP, "web"))

	l := gets(t, clients, "http://"+g.address("web")+"/", upTo(clients))
	var hints atomic.Int64
	l.note = func(r *http.Response) {
		if r.StatusCode == 503 && r.Header.Get("Retry-After") != "" {
			hints.Add(1)
		}
	}
	var running sync.WaitGroup
	running.Go(func() { l.run(t, clients) })
	defer running.Wait()
	defer open()
	eventually(t, "all others are answered", func() bool { n, _ := l.sent(""); return n == clients-atOnce-waiting || t.Failed() })
	s := g.upstream("web")
	under, pending, refused := s.GetRequestsInFlight(), s.GetPending(), s.GetOverloaded()
	open()
	running.Wait()
	// The end of a request is counted slightly after its response.
	eventually(t, "no request is left", func() bool {
		s = g.upstream("web")
		return s.GetRequestsInFlight() == 0 && s.GetPending() == 0
	})
	t.Logf("%d requests at once: %d were sent at once, %d waited, %d were refused, %d of these with Retry-After; in the end %v; %s",
		clients, under, pending, refused, hints.Load(), l.codes[""], l.quantiles())
	if under != atOnce || pending != waiting || refused != clients-atOnce-waiting || hints.Load() != clients-atOnce-waiting {
		t.Errorf("want %d, %d and %d", atOnce, waiting, clients-atOnce-waiting)
	}
	if n := l.codes[""]; n[200] != atOnce+waiting || n[503] != clients-atOnce-waiting {
		t.Errorf("in the end: %v", n)
	}
	if s.GetOverloaded() != refused {
		t.Errorf("status: %v", s)
	}
}
