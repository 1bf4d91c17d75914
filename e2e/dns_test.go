// Endpoints come from DNS. When its answer changes from one server to another
// under traffic, no request or connection fails, and open connections stay
// open. A name that does not resolve when the gateway starts is retried.

package e2e

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/drawbridge-gateway/drawbridge/bridge/resolve/dnstest"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

// twoHosts returns listeners on the same port of two loopback addresses.
func twoHosts(t testing.TB) (one, two net.Listener, port int32) {
	t.Helper()
	for range 20 {
		one, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		n := one.Addr().(*net.TCPAddr).Port
		two, err := net.Listen("tcp", net.JoinHostPort("127.0.0.2", strconv.Itoa(n)))
		if err == nil {
			return one, two, int32(n)
		}
		_ = one.Close()
	}
	t.Skip("this machine does not take 127.0.0.2 for itself")
	return nil, nil, 0
}

// byDNS returns an upstream with endpoints from the DNS server s.
func byDNS(name string, s *dnstest.Server, port int32) *adminv1.Upstream {
	u := upstream(name, &adminv1.UpstreamTls{Certificate: "client", TrustBundles: []string{"ca"}})
	u.Dns = &adminv1.Dns{Hostname: serverName, Port: port, Servers: []string{s.Addr().String()}}
	return u
}

// addresses returns the endpoints in an upstream's status.
func (g *gateway) addresses(name string) string {
	g.t.Helper()
	var out []string
	for _, e := range g.upstream(name).GetEndpoints() {
		text := e.GetAddress()
		if e.GetDraining() {
			text += " draining"
		}
		out = append(out, text)
	}
	return strings.Join(out, ", ")
}

func TestTheAnswerOfDNSChangesUnderTraffic(t *testing.T) {
	t.Parallel()
	a := newAuthority(t)
	httpOne, httpTwo, httpPort := twoHosts(t)
	rawOne, rawTwo, rawPort := twoHosts(t)
	var ones, twos, conns atomic.Int64
	serve := func(ln net.Listener, text string, requests *atomic.Int64) *httptest.Server {
		s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			requests.Add(1)
			respondsWith(text)(w, r)
		}))
		_ = s.Listener.Close()
		s.Listener, s.TLS, s.EnableHTTP2 = ln, a.serverConfig(t), true
		s.StartTLS()
		t.Cleanup(func() { s.CloseClientConnections(); s.Close() })
		return s
	}
	serverOne := serve(httpOne, "one", &ones)
	serve(httpTwo, "two", &twos)
	serveOn(t, rawOne, a.serverConfig(t), echo)
	serveOn(t, rawTwo, a.serverConfig(t), echo)

	names := dnstest.NewServer(t)
	names.Set(serverName, dnstest.A(1, "127.0.0.1"))
	g := startGateway(t)
	events := g.watchEvents()
	g.apply(trustBundle("ca", a.ca), certificate("client", a.client),
		byDNS("web", names, httpPort), byDNS("raw", names, rawPort),
		listener("web", protocolHTTP, "web"), listener("raw", protocolTCP, "raw"))

	open := dial(t, g.address("raw"))
	if err := pingPong(open, "before"); err != nil {
		t.Fatal(err)
	}

	// Clients run until the end of the test and report every failure.
	ctx, cancel := context.WithCancel(t.Context())
	var clients sync.WaitGroup
	for range 3 {
		clients.Go(func() {
			client := &http.Client{Transport: &http.Transport{}}
			defer client.CloseIdleConnections()
			for ctx.Err() == nil {
				if code, body, err := tryGet(t, client, "http://"+g.address("web")+"/"); err != nil || code != 200 {
					t.Errorf("HTTP: %d %q, %v", code, body, err)
					return
				}
			}
		})
		clients.Go(func() {
			for ctx.Err() == nil {
				if answer, err := exchange(t, g.address("raw"), "hello"); err != nil || answer != "hello" {
					t.Errorf("TCP: %q, %v", answer, err)
					return
				}
				conns.Add(1)
			}
		})
	}
	defer clients.Wait()
	defer cancel()
	eventually(t, "traffic flows", func() bool { return ones.Load() > 50 && conns.Load() > 20 || t.Failed() })

	names.Set(serverName, dnstest.A(1, "127.0.0.2"))
	webTwo, rawOneAddr, rawTwoAddr := fmt.Sprintf("127.0.0.2:%d", httpPort), rawOne.Addr().String(), rawTwo.Addr().String()
	eventually(t, "HTTP has moved", func() bool { return g.addresses("web") == webTwo || t.Failed() })
	eventually(t, "TCP has moved", func() bool { return g.addresses("raw") == rawTwoAddr+", "+rawOneAddr+" draining" || t.Failed() })
	if err := pingPong(open, "after"); err != nil {
		t.Errorf("a connection that was open: %v", err)
	}
	_ = serverOne.Listener.Close() // this server is no longer needed
	at, connected := twos.Load(), conns.Load()
	eventually(t, "traffic continues", func() bool { return twos.Load() > at+50 && conns.Load() > connected+20 || t.Failed() })
	before := ones.Load()
	for range 20 {
		if code, body := get(t, "http://"+g.address("web")+"/"); code != 200 || body != "two" {
			t.Errorf("%d %q", code, body)
		}
	}
	if ones.Load() != before {
		t.Error("a server no longer in DNS answers requests")
	}
	cancel()
	clients.Wait()

	changed := map[string]string{}
	for len(changed) < 4 {
		e := events.await(adminv1.EventType_EVENT_TYPE_ENDPOINTS_CHANGED)
		changed[e.GetName()+" "+e.GetMessage()] = e.GetName()
	}
	if want := "raw " + rawTwoAddr + " added, " + rawOneAddr + " removed"; changed[want] == "" {
		t.Errorf("events %v, none is %q", changed, want)
	}
	r := g.cli("status")
	for _, want := range []string{rawOneAddr, "up, draining", "BY DNS", "1 endpoint"} {
		if !strings.Contains(r.stdout, want) {
			t.Errorf("drawbridge status has no %q:\n%s", want, r.stdout)
		}
	}
	if r := g.cli("probe", "raw"); r.code != 0 || !strings.Contains(r.stdout, rawTwoAddr) || strings.Contains(r.stdout, rawOneAddr) {
		t.Errorf("drawbridge probe: %v", r)
	}
	_ = open.Close()
	eventually(t, "the removed endpoint is gone from the status", func() bool { return g.addresses("raw") == rawTwoAddr })
}

func TestANameThatDoesNotResolveAtStartIsRetried(t *testing.T) {
	t.Parallel()
	a := newAuthority(t)
	names := dnstest.NewServer(t)
	_, port, _ := net.SplitHostPort(serveHTTPS(t, &tls.Config{Certificates: []tls.Certificate{keyPair(t, a.server)}}, respondsWith("hello")))
	n, _ := strconv.Atoi(port)
	g := startGateway(t)
	g.apply(trustBundle("ca", a.ca), certificate("client", a.client), byDNS("web", names, int32(n)), listener("web", protocolHTTP, "web"))
	g.stop()
	g = g.restart()
	if code, body := get(t, "http://"+g.address("web")+"/"); code != 503 || body != "service unavailable\n" {
		t.Errorf("%d %q", code, body)
	}
	u := g.upstream("web")
	if len(u.GetEndpoints()) != 0 || u.GetReason() != adminv1.Reason_REASON_DNS_FAILURE || u.GetMessage() == "" || !strings.Contains(u.GetDns().GetError(), "no such host") {
		t.Errorf("status %v", u)
	}
	if r := g.cli("status"); !strings.Contains(r.stdout, "DNS_FAILURE") {
		t.Errorf("drawbridge status:\n%s", r.stdout)
	}
	if r := g.cli("probe", "web"); r.code == 0 || !strings.Contains(r.stdout, "does not resolve") {
		t.Errorf("drawbridge probe: %v", r)
	}
	names.Set(serverName, dnstest.CNAME(1, "alias.test"))
	names.Set("alias.test", dnstest.A(1, "127.0.0.1"))
	eventually(t, "the name resolves", func() bool {
		code, body := get(t, "http://"+g.address("web")+"/")
		return code == 200 && body == "hello"
	})
}
