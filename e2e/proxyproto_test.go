// haproxy and nginx send the client's address to the gateway in a PROXY header,
// over TCP and HTTP, and the gateway sends it on to nginx, before TLS. The
// gateway does not accept a header from an untrusted address.

package e2e

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"google.golang.org/protobuf/proto"

	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

// startHAProxy runs a real haproxy that accepts TCP connections on one address
// for each server, and forwards them to that server. A server is written in
// haproxy's syntax.
func startHAProxy(t testing.TB, servers ...string) []string {
	t.Helper()
	path := need(t, "haproxy")
	for range 5 { // another program may take a free port first
		addresses := freeAddresses(t, len(servers))
		conf := "global\n  maxconn 100\ndefaults\n  mode tcp\n  timeout connect 5m\n  timeout client 5m\n  timeout server 5m\n"
		for i, server := range servers {
			conf += fmt.Sprintf("listen l%d\n  bind %s\n  server s %s\n", i, addresses[i], server)
		}
		p := start(t, path, "-db", "-f", writeFile(t, filepath.Join(shortDir(t), "haproxy.cfg"), []byte(conf)))
		up := func() bool { return p.done() || !refuses(addresses[0]) }
		eventually(t, "haproxy accepts connections", up)
		if !p.done() {
			return addresses
		}
		if !p.out.contains("cannot bind socket") {
			t.Fatalf("haproxy ended: %v\n%s", p.err, tail(p.out.String()))
		}
	}
	t.Fatal("haproxy found its ports in use, five times")
	return nil
}

// dialFrom connects to an address from the local address ip.
func dialFrom(t testing.TB, ip, address string) net.Conn {
	t.Helper()
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(ip)}, Timeout: testTimeout}
	conn, err := d.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// getFrom makes one request from the local address ip.
func getFrom(t testing.TB, ip, address string) string {
	t.Helper()
	conn := dialFrom(t, ip, address)
	req, _ := http.NewRequestWithContext(longContext(t), http.MethodGet, "http://"+address, nil)
	transport := &http.Transport{
		DialContext:       func(context.Context, string, string) (net.Conn, error) { return conn, nil },
		DisableKeepAlives: true,
	}
	resp, err := transport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	body, err := readBody(resp)
	if err != nil {
		t.Fatal(err)
	}
	return body
}

func TestClientAddressesReachTheUpstream(t *testing.T) {
	t.Parallel()
	a := newAuthority(t)
	back := startNginx(t, nginxConfig{
		ports: 2,
		files: nginxFiles(a.ca, a.server),
		stream: func(n *nginx) string {
			return fmt.Sprintf(`server { listen %s ssl proxy_protocol; %s
    return "$proxy_protocol_addr for $proxy_protocol_server_port"; }`, n.address(0), n.mutualTLS())
		},
		http: func(n *nginx) string {
			return fmt.Sprintf(`server { listen %s ssl http2 proxy_protocol; %s
    location / { return 200 "$proxy_protocol_addr, $http_x_forwarded_for"; } }`, n.address(1), n.mutualTLS())
		},
	})

	g := startGateway(t)
	accept := &adminv1.AcceptProxyProtocol{TrustedSources: []string{"127.0.0.1"}}
	resources := []proto.Message{trustBundle("ca", a.ca), certificate("client", a.client)}
	for name, x := range map[string]struct {
		protocol adminv1.Protocol
		address  string
		send     adminv1.SendProxyProtocol
	}{
		"tcp":   {protocolTCP, back.address(0), adminv1.SendProxyProtocol_SEND_PROXY_PROTOCOL_V2},
		"http":  {protocolHTTP, back.address(1), adminv1.SendProxyProtocol_SEND_PROXY_PROTOCOL_V1},
		"http2": {protocolHTTP, back.address(1), adminv1.SendProxyProtocol_SEND_PROXY_PROTOCOL_V2},
	} {
		u := upstream(name, a.settings(), x.address)
		u.SendProxyProtocol = x.send
		u.Http = &adminv1.UpstreamHttp{Protocol: adminv1.HttpProtocol_HTTP_PROTOCOL_1_1}
		if name == "http2" {
			u.Http.Protocol = adminv1.HttpProtocol_HTTP_PROTOCOL_2
		}
		l := listener(name, x.protocol, name)
		l.AcceptProxyProtocol = accept
		resources = append(resources, u, l)
	}
	g.apply(resources...)

	fronts := startHAProxy(t, g.address("tcp")+" send-proxy", g.address("tcp")+" send-proxy-v2",
		g.address("http")+" send-proxy", g.address("http2")+" send-proxy-v2")
	front := startNginx(t, nginxConfig{ports: 2, stream: func(n *nginx) string {
		return fmt.Sprintf(`proxy_protocol on;
  server { listen %s; proxy_pass %s; } server { listen %s; proxy_pass %s; }`,
			n.address(0), g.address("tcp"), n.address(1), g.address("http"))
	}})

	for _, address := range []string{fronts[0], fronts[1], front.address(0)} {
		got, err := io.ReadAll(dialFrom(t, "127.0.0.7", address))
		_, port, _ := net.SplitHostPort(address)
		if want := "127.0.0.7 for " + port; err != nil || string(got) != want {
			t.Errorf("TCP: %q, %v; want %q", got, err, want)
		}
	}
	for _, address := range []string{fronts[2], fronts[3], front.address(1)} {
		// A request never uses a connection with another client's address.
		for i := range 4 {
			ip := fmt.Sprintf("127.0.0.%d", 10+i%2)
			if got, want := getFrom(t, ip, address), ip+", "+ip; got != want {
				t.Errorf("HTTP: %q, want %q", got, want)
			}
		}
	}

	for _, name := range []string{"tcp", "http"} {
		conn, err := (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 9)}}).Dial("tcp", g.address(name))
		if errors.Is(err, syscall.ECONNRESET) {
			continue // the gateway closed before the dial returned
		}
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		_, _ = io.WriteString(conn, "PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\nGET / HTTP/1.1\r\nHost: x\r\n\r\n")
		if got, _ := io.ReadAll(conn); len(got) > 0 {
			t.Errorf("%s: an untrusted client got %q", name, got)
		}
	}
	for _, header := range []string{"GET / HTTP/1.1\r\nHost: x\r\n\r\n", "PROXY TCP4 you me 1 2\r\nGET / HTTP/1.1\r\nHost: x\r\n\r\n"} {
		if got, _ := exchange(t, g.address("http"), header); got != "" {
			t.Errorf("%q got %q", header, got)
		}
	}

	// A probe sends the PROXY header too.
	out := g.cli("probe", "tcp")
	if out.code != 0 || !strings.Contains(out.stdout, "OK") {
		t.Errorf("probe: %d %s%s", out.code, out.stdout, out.stderr)
	}
}
