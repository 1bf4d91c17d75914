// A client over its limit is refused while others are served. Connections are
// retired by age and request count without a failed request.

package e2e

import (
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

// from returns an HTTP/1.1 client that uses a local address.
func from(t *testing.T, ip string) *http.Client {
	transport := &http.Transport{DialContext: (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(ip)}}).DialContext}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}
}

func TestClientsAreHeldToTheirLimits(t *testing.T) {
	t.Parallel()
	a := newAuthority(t)
	up := serveHTTPS(t, a.serverConfig(t), func(w http.ResponseWriter, r *http.Request) {
		n, _ := io.Copy(io.Discard, r.Body)
		fmt.Fprint(w, n)
	})
	hourly := func(n int32) *adminv1.Rate { return &adminv1.Rate{Count: n, Period: durationpb.New(time.Hour)} }
	web, raw := listener("web", protocolHTTP, "up"), listener("raw", protocolTCP, "raw")
	web.Limits = &adminv1.ListenerLimits{RatePerClient: hourly(5), Rate: hourly(1000)}
	web.Http = &adminv1.HttpOptions{MaxBodyBytes: 1000}
	raw.Limits = &adminv1.ListenerLimits{RatePerClient: hourly(2)}
	g := startGateway(t)
	g.apply(
		trustBundle("ca", a.ca), certificate("client", a.client), upstream("up", a.settings(), up),
		upstream("raw", a.settings(), serveConns(t, a.serverConfig(t), echo)), web, raw,
	)
	url := "http://" + g.address("web")

	one, two := from(t, "127.0.0.1"), from(t, "127.0.0.2")
	for i := range 8 {
		resp, err := one.Get(url)
		if err != nil {
			t.Fatal(err)
		}
		text, _ := readBody(resp)
		if i < 5 && (resp.StatusCode != 200 || text != "0") || i >= 5 && (resp.StatusCode != 429 || resp.Header.Get("Retry-After") == "") {
			t.Errorf("request %d: %d %q %v", i, resp.StatusCode, text, resp.Header)
		}
	}
	for _, n := range []int{0, 1000, 1001} {
		resp, err := two.Post(url, "text/plain", strings.NewReader(strings.Repeat("x", n)))
		if err != nil {
			t.Fatal(err)
		}
		text, _ := readBody(resp)
		if n <= 1000 && text != fmt.Sprint(n) || n > 1000 && (resp.StatusCode != 413 || text != "content too large\n") {
			t.Errorf("a body of %d: %d %q", n, resp.StatusCode, text)
		}
	}
	for i := range 4 {
		text, err := exchange(t, g.address("raw"), "hello")
		if within := i < 2; within != (err == nil && text == "hello") {
			t.Errorf("connection %d: %q, %v", i, text, err)
		}
	}
	// A change of the limits keeps the usage so far.
	web.Limits.RatePerClient = hourly(6)
	g.apply(web)
	if code, _, err := tryGet(t, one, url); err != nil || code != 429 && code != 200 {
		t.Errorf("%d, %v", code, err)
	}
	if code, _, err := tryGet(t, one, url); err != nil || code != 429 {
		t.Errorf("%d, %v", code, err)
	}
	web.Limits = nil
	g.apply(web)
	for range 20 {
		if code, _, err := tryGet(t, one, url); err != nil || code != 200 {
			t.Errorf("without limits: %d, %v", code, err)
		}
	}
}

func TestClientsDoNotNoticeExpiredConnections(t *testing.T) {
	t.Parallel()
	a := newAuthority(t)
	up := serveHTTPS(t, a.serverConfig(t), respondsWith("hello"))
	web, secure := listener("web", protocolHTTP, "up"), listener("secure", protocolHTTP, "up")
	web.Http = &adminv1.HttpOptions{MaxRequestsPerConnection: 10}
	secure.Http = &adminv1.HttpOptions{MaxRequestsPerConnection: 10, MaxConnectionAge: durationpb.New(time.Second)}
	secure.Tls = &adminv1.ServerTls{Certificates: []string{"server"}}
	g := startGateway(t)
	g.apply(
		trustBundle("ca", a.ca), certificate("client", a.client), certificate("server", a.server),
		upstream("up", a.settings(), up), web, secure,
	)
	one := from(t, "127.0.0.1")
	for i := range 50 {
		if code, text, err := tryGet(t, one, "http://"+g.address("web")); err != nil || code != 200 || text != "hello" {
			t.Fatalf("request %d: %d %q, %v", i, code, text, err)
		}
	}
	if n := g.listener("web").GetAccepted(); n != 5 {
		t.Errorf("50 requests on %d connections", n)
	}

	config := &tls.Config{RootCAs: pool(a.ca), ServerName: serverName}
	two := &http.Client{Transport: &http.Transport{TLSClientConfig: config, ForceAttemptHTTP2: true}}
	defer two.CloseIdleConnections()
	for i := range 50 {
		if code, text, err := tryGet(t, two, "https://"+g.address("secure")); err != nil || code != 200 || text != "hello" {
			t.Fatalf("HTTP/2, request %d: %d %q, %v", i, code, text, err)
		}
	}
	if n := g.listener("secure").GetAccepted(); n < 2 {
		t.Errorf("50 requests of HTTP/2 on %d connections", n)
	}
	if code, _, err := tryGet(t, two, "https://"+g.address("secure")); err != nil || code != 200 {
		t.Errorf("%d, %v", code, err)
	}
	eventually(t, "idle connections are closed at their age", func() bool { return g.listener("secure").GetConnections() == 0 })
}
