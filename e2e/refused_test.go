// The gateway sends no data to an upstream whose certificate does not verify,
// or that rejects ours. The client sees 502 or a closed connection, and the log
// and the status have the reason.

package e2e

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/drawbridge-gateway/drawbridge/certs/pki"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
	"google.golang.org/protobuf/proto"
)

func TestNginxThatDoesNotVerifyIsRefused(t *testing.T) {
	t.Parallel()
	a, stranger := newAuthority(t), newAuthority(t)
	deep := intermediate(t, intermediate(t, a.ca))

	verified := func() *adminv1.UpstreamTls {
		return a.settings()
	}
	shallow := verified()
	shallow.VerifyDepth = proto.Int32(1)
	deepEnough := verified()
	deepEnough.VerifyDepth = proto.Int32(2)
	otherName := verified()
	otherName.VerifyName = "other.example.com"

	cases := []struct {
		name     string
		server   *pki.Issued
		settings *adminv1.UpstreamTls
		reason   adminv1.Reason // unspecified: the handshake succeeds
	}{
		{"good", a.server, verified(), adminv1.Reason_REASON_UNSPECIFIED},
		{"wrong-ca", stranger.server, verified(), adminv1.Reason_REASON_UNKNOWN_CA},
		{"expired", expiredCert(t, a.ca, serverName), verified(), adminv1.Reason_REASON_EXPIRED},
		{"wrong-name", serverCert(t, a.ca, "elsewhere.example.com"), verified(), adminv1.Reason_REASON_NAME_MISMATCH},
		{"wrong-verify-name", a.server, otherName, adminv1.Reason_REASON_NAME_MISMATCH},
		{"wrong-usage", clientCertFor(t, a.ca, serverName), verified(), adminv1.Reason_REASON_WRONG_KEY_USAGE},
		{"too-deep", serverCert(t, deep, serverName), shallow, adminv1.Reason_REASON_DEPTH_EXCEEDED},
		{"deep-enough", serverCert(t, deep, serverName), deepEnough, adminv1.Reason_REASON_UNSPECIFIED},
	}

	files := map[string][]byte{"ca.pem": a.ca.RootPEM()}
	for _, c := range cases {
		files[c.name+".pem"], files[c.name+".key"] = c.server.ChainPEM, c.server.KeyPEM
	}
	servers := func(n *nginx, first int) string {
		var b strings.Builder
		for i, c := range cases {
			fmt.Fprintf(&b, `server {
    listen %s ssl;
    ssl_certificate %s;
    ssl_certificate_key %s;
    ssl_client_certificate %s;
    ssl_verify_client on;
    return %s"reached";
  }
`, n.address(first+i), n.file(c.name+".pem"), n.file(c.name+".key"), n.file("ca.pem"), map[int]string{0: "200 "}[first])
		}
		return b.String()
	}
	n := startNginx(t, nginxConfig{
		ports: 2 * len(cases), files: files,
		http:   func(n *nginx) string { return servers(n, 0) },
		stream: func(n *nginx) string { return servers(n, len(cases)) },
	})

	g := startGateway(t)
	g.apply(trustBundle("ca", a.ca), certificate("client", a.client))
	for i, c := range cases {
		g.apply(
			upstream("http-"+c.name, c.settings, n.address(i)), upstream("tcp-"+c.name, c.settings, n.address(len(cases)+i)),
			listener("http-"+c.name, protocolHTTP, "http-"+c.name), listener("tcp-"+c.name, protocolTCP, "tcp-"+c.name),
		)
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			expectRefusal(t, g, "http-"+c.name, "tcp-"+c.name, c.reason)
		})
	}
}

func TestServerThatRefusesOurCertificateIsReported(t *testing.T) {
	t.Parallel()
	a, stranger := newAuthority(t), newAuthority(t)
	web := serveHTTPS(t, a.serverConfig(t), respondsWith("reached"))
	raw := serveConns(t, a.serverConfig(t), echo)

	g := startGateway(t)
	g.apply(trustBundle("ca", a.ca), certificate("stranger", stranger.client))
	for _, c := range []struct {
		name, certificate string
		highest           adminv1.TlsVersion
		reason            adminv1.Reason
	}{
		// TLS 1.3 servers verify the client's certificate after the client has
		// finished its handshake: the alert arrives with the first read.
		{"none-1-3", "", adminv1.TlsVersion_TLS_VERSION_1_3, adminv1.Reason_REASON_CLIENT_CERTIFICATE_REQUIRED},
		{"stranger-1-3", "stranger", adminv1.TlsVersion_TLS_VERSION_1_3, adminv1.Reason_REASON_CLIENT_CERTIFICATE_REJECTED},
		{"stranger-1-2", "stranger", adminv1.TlsVersion_TLS_VERSION_1_2, adminv1.Reason_REASON_CLIENT_CERTIFICATE_REJECTED},
	} {
		settings := &adminv1.UpstreamTls{Certificate: c.certificate, TrustBundles: []string{"ca"}, ServerName: serverName, MaxVersion: c.highest}
		g.apply(
			upstream("http-"+c.name, settings, web), upstream("tcp-"+c.name, settings, raw),
			listener("http-"+c.name, protocolHTTP, "http-"+c.name), listener("tcp-"+c.name, protocolTCP, "tcp-"+c.name),
		)
		t.Run(c.name, func(t *testing.T) {
			expectRefusal(t, g, "http-"+c.name, "tcp-"+c.name, c.reason)
		})
	}
}

func TestOpenSSLServerThatRequiresACertificateIsReported(t *testing.T) {
	t.Parallel()
	openssl := need(t, "openssl")
	a := newAuthority(t)
	dir := t.TempDir()
	for name, data := range nginxFiles(a.ca, a.server) {
		writeFile(t, filepath.Join(dir, name), data)
	}
	var address string
	for range 5 {
		address = freeAddresses(t, 1)[0]
		server := start(t, openssl, "s_server", "-accept", address, "-cert", filepath.Join(dir, "server.pem"),
			"-key", filepath.Join(dir, "server.key"), "-CAfile", filepath.Join(dir, "ca.pem"),
			"-Verify", "1", "-verify_return_error", "-www")
		eventually(t, "openssl s_server accepts connections", func() bool { return server.out.contains("ACCEPT") || server.done() })
		if !server.done() {
			break
		}
	}
	g := startGateway(t)
	without := &adminv1.UpstreamTls{TrustBundles: []string{"ca"}, ServerName: serverName}
	with := proto.Clone(without).(*adminv1.UpstreamTls)
	with.Certificate = "client"
	g.apply(
		trustBundle("ca", a.ca), certificate("client", a.client),
		upstream("without", without, address), listener("without", protocolHTTP, "without"),
		upstream("with", with, address), listener("with", protocolHTTP, "with"),
	)
	if code, body := get(t, "http://"+g.address("with")+"/"); code != 200 || !strings.Contains(body, "Client certificate") {
		t.Errorf("with a certificate: %d %q", code, body)
	}
	if code, body := get(t, "http://"+g.address("without")+"/"); code != 502 {
		t.Errorf("without a certificate: %d %q", code, body)
	}
	expectReason(t, g, "without", adminv1.Reason_REASON_CLIENT_CERTIFICATE_REQUIRED)
}

// expectRefusal sends data through an HTTP and a TCP listener, each with the
// name of its upstream, and checks that both fail with the given reason.
func expectRefusal(t *testing.T, g *gateway, web, raw string, reason adminv1.Reason) {
	t.Helper()
	code, body := get(t, "http://"+g.address(web)+"/")
	answer, err := exchange(t, g.address(raw), "reached")
	if reason == adminv1.Reason_REASON_UNSPECIFIED {
		if code != 200 || body != "reached" {
			t.Errorf("HTTP: %d %q", code, body)
		}
		if err != nil || answer != "reached" {
			t.Errorf("TCP: %q, %v", answer, err)
		}
		return
	}
	want := 502
	if reason == adminv1.Reason_REASON_HANDSHAKE_TIMEOUT {
		want = 504
	}
	if code != want || strings.Contains(strings.ToLower(body), "certificate") || len(body) > 100 {
		t.Errorf("HTTP: %d %q, want %d and a short body without details", code, body, want)
	}
	if answer != "" || err == nil {
		t.Errorf("TCP: the client got %q, %v, want a connection that is reset", answer, err)
	}
	expectReason(t, g, web, reason)
	expectReason(t, g, raw, reason)
}

// expectReason checks that the status and the log show the reason why an
// upstream's only endpoint could not be used. The client's connection may end
// slightly earlier.
func expectReason(t *testing.T, g *gateway, name string, reason adminv1.Reason) {
	t.Helper()
	var e *adminv1.EndpointStatus
	if !pollUntil(func() bool {
		e = g.upstream(name).GetEndpoints()[0]
		return e.GetHealth() == adminv1.EndpointHealth_ENDPOINT_HEALTH_DOWN && e.GetLastFailure().GetReason() == reason
	}) {
		t.Fatalf("%s: its endpoint is %v, want it down because of %v", name, e, reason)
	}
	if e.GetLastFailure().GetMessage() == "" || e.GetLastFailure().GetFailureTime() == nil {
		t.Errorf("%s: last failure is %v", name, e.GetLastFailure())
	}
	if !slices.ContainsFunc(e.GetFailures(), func(f *adminv1.FailureCount) bool { return f.GetReason() == reason && f.GetCount() > 0 }) {
		t.Errorf("%s: failures are %v, want one of %v", name, e.GetFailures(), reason)
	}
	word := strings.TrimPrefix(reason.String(), "REASON_")
	eventually(t, name+" has a line in the log with "+word, func() bool {
		for line := range strings.Lines(g.out.String()) {
			if strings.Contains(line, `"`+name+`"`) && strings.Contains(line, word) {
				return true
			}
		}
		return false
	})
}

func intermediate(t *testing.T, ca *pki.CA) *pki.CA {
	t.Helper()
	below, err := ca.NewIntermediate(pki.CAOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return below
}

// clientCertFor issues a certificate with the names of a server, but only the
// usage of a client.
func clientCertFor(t *testing.T, ca *pki.CA, name string) *pki.Issued {
	t.Helper()
	return issue(t, ca, pki.LeafOptions{CommonName: name, DNSNames: []string{name}, Usage: pki.Client})
}
