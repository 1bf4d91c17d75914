// If the server name comes from the host, the host is normalized before it is
// sent and verified. An invalid name is rejected before a dial. The state for
// the names that clients invent is bounded.

package e2e

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/drawbridge-gateway/drawbridge/certs/pki"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

func TestServerNamesFromTheHost(t *testing.T) {
	t.Parallel()
	a := newAuthority(t)
	config := a.serverConfig(t)
	config.Certificates = []tls.Certificate{keyPair(t, issue(t, a.ca, pki.LeafOptions{
		DNSNames: []string{"*.wild.example.com"}, IPs: []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback}, Usage: pki.Server,
	}))}
	address := serveHTTPS(t, config, func(w http.ResponseWriter, r *http.Request) {
		_, _ = fmt.Fprintf(w, "[%s]", r.TLS.ServerName)
	})
	settings := a.settings()
	settings.ServerName, settings.ServerNameSource = "", adminv1.ServerNameSource_SERVER_NAME_SOURCE_FROM_HOST
	g := startGateway(t)
	g.apply(trustBundle("ca", a.ca), certificate("client", a.client), upstream("web", settings, address), listener("web", protocolHTTP, "web"))

	// Send raw bytes, as a malicious client would.
	ask := func(head string) (int, string) {
		t.Helper()
		conn := dial(t, g.address("web"))
		defer conn.Close()
		if _, err := conn.Write([]byte(head)); err != nil {
			t.Fatal(err)
		}
		resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			t.Fatalf("%.100q: %v", head, err)
		}
		body, err := readBody(resp)
		if err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode, body
	}
	for host, want := range map[string]string{
		"a.wild.example.com": "[a.wild.example.com]", "A.Wild.Example.COM": "[a.wild.example.com]", "a.wild.example.com.": "[a.wild.example.com]",
		"a.wild.example.com:8443": "[a.wild.example.com]", "127.0.0.1": "[]", "[::1]:80": "[]",
		"wild.example.com": "", "a.b.wild.example.com": "", "a.wild.example.com.evil.test": "", "127.0.0.2": "", "*.wild.example.com": "",
		"a.wild.example.com\x00.evil.test": "", "a.wild.example.com/": "", "a.wild.example.com@evil.test": "", "evil.test\ta.wild.example.com": "",
		strings.Repeat("x", 64) + ".wild.example.com": "", strings.Repeat("x.", 140) + "wild.example.com": "", "": "",
	} {
		code, body := ask("GET / HTTP/1.1\r\nHost: " + host + "\r\nConnection: close\r\n\r\n")
		if (code == 200) != (want != "") || want != "" && body != want || code != 200 && code < 400 {
			t.Errorf("host %.100q: %d %q, want %q", host, code, body, want)
		}
	}
	if code, body := ask("GET / HTTP/1.0\r\n\r\n"); code < 400 {
		t.Errorf("without a host: %d %q", code, body)
	}

	for i := range 560 {
		host := fmt.Sprintf("h%d.wild.example.com", i)
		if code, body := ask("GET / HTTP/1.1\r\nHost: " + host + "\r\nConnection: close\r\n\r\n"); code != 200 || body != "["+host+"]" {
			t.Fatalf("%s: %d %q", host, code, body)
		}
	}
	eventually(t, "connections for unused hosts are closed", func() bool { return g.upstream("web").GetEndpoints()[0].GetConnections() <= 512 })
}
