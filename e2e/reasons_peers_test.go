// Failures with nginx and OpenSSL have the same reasons as with Go's TLS: in
// the status, the log and a probe, with TLS 1.2 and 1.3, over HTTP and TCP.

package e2e

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/drawbridge-gateway/drawbridge/certs/pki"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

func TestReasonsAtNginx(t *testing.T) {
	t.Parallel()
	a, other := newAuthority(t), newCA(t, "another root")
	revoked := serverCert(t, a.ca, serverName)
	cases := []struct {
		name   string
		server *pki.Issued
		change func(u *adminv1.UpstreamTls)
		reason adminv1.Reason
		facts  []string
	}{
		{"good", a.server, nil, adminv1.Reason_REASON_UNSPECIFIED, []string{"completed the handshake"}},
		{"unknown-ca", a.server, func(u *adminv1.UpstreamTls) { u.TrustBundles = []string{"other"} }, adminv1.Reason_REASON_UNKNOWN_CA, []string{"CN=e2e root"}},
		{"expired", expiredCert(t, a.ca, serverName), nil, adminv1.Reason_REASON_EXPIRED, []string{"CN=" + serverName, "ago"}},
		{"name", serverCert(t, a.ca, "elsewhere.example.com"), nil, adminv1.Reason_REASON_NAME_MISMATCH, []string{"elsewhere.example.com", "we verify " + serverName}},
		{"revoked", revoked, func(u *adminv1.UpstreamTls) { u.TrustBundles = []string{"with-crl"} }, adminv1.Reason_REASON_REVOKED, []string{"revoked"}},
		{"not-revoked", a.server, func(u *adminv1.UpstreamTls) { u.TrustBundles = []string{"with-crl"} }, adminv1.Reason_REASON_UNSPECIFIED, nil},
		{"no-name-sent", a.server, func(u *adminv1.UpstreamTls) {
			u.ServerNameSource = adminv1.ServerNameSource_SERVER_NAME_SOURCE_NONE
		}, adminv1.Reason_REASON_UNSPECIFIED, nil},
	}
	files := map[string][]byte{"ca.pem": a.ca.RootPEM()}
	for _, c := range cases {
		files[c.name+".pem"], files[c.name+".key"] = c.server.ChainPEM, c.server.KeyPEM
	}
	server := func(n *nginx, port int, name, answer string) string {
		return fmt.Sprintf(`server {
    listen %s ssl;
    ssl_certificate %s;
    ssl_certificate_key %s;
    ssl_client_certificate %s;
    ssl_verify_client on;
    return %s"reached";
  }
`, n.address(port), n.file(name+".pem"), n.file(name+".key"), n.file("ca.pem"), answer)
	}
	n := startNginx(t, nginxConfig{
		ports: 2 * len(cases), files: files,
		http: func(n *nginx) string {
			var b strings.Builder
			for i, c := range cases {
				b.WriteString(server(n, i, c.name, "200 "))
			}
			return b.String()
		},
		stream: func(n *nginx) string {
			var b strings.Builder
			for i, c := range cases {
				b.WriteString(server(n, len(cases)+i, c.name, ""))
			}
			return b.String()
		},
	})
	g := startGateway(t)
	g.apply(
		certificate("client", a.client), trustBundle("ca", a.ca), trustBundle("other", other),
		withCRLs(trustBundle("with-crl", a.ca), crl(t, a.ca, revoked)),
	)
	for i, c := range cases {
		for _, v := range bothVersions {
			t.Run(c.name+"-"+v.name, func(t *testing.T) {
				settings := a.settings()
				settings.MinVersion, settings.MaxVersion = v.ours, v.ours
				if c.change != nil {
					c.change(settings)
				}
				web, raw := "http-"+c.name+"-"+v.name, "tcp-"+c.name+"-"+v.name
				g.apply(
					upstream(web, settings, n.address(i)), listener(web, protocolHTTP, web),
					upstream(raw, settings, n.address(len(cases)+i)), listener(raw, protocolTCP, raw),
				)
				expectRefusal(t, g, web, raw, c.reason)
				expectProbe(t, g, web, c.reason, c.facts, nil)
				expectProbe(t, g, raw, c.reason, c.facts, nil)
			})
		}
	}
}

func TestReasonsAtOpenSSL(t *testing.T) {
	t.Parallel()
	openssl := need(t, "openssl")
	a, other := newAuthority(t), newCA(t, "another root")
	revoked := clientCert(t, a.ca, "revoked client")
	dir := t.TempDir()
	for name, data := range nginxFiles(a.ca, a.server) {
		writeFile(t, filepath.Join(dir, name), data)
	}
	writeFile(t, filepath.Join(dir, "crl.pem"), crl(t, a.ca, revoked))
	serve := func(t *testing.T, args ...string) string {
		t.Helper()
		for range 5 {
			address := freeAddresses(t, 1)[0]
			server := start(t, openssl, append([]string{
				"s_server", "-accept", address, "-cert", filepath.Join(dir, "server.pem"),
				"-key", filepath.Join(dir, "server.key"), "-CAfile", filepath.Join(dir, "ca.pem"), "-www",
			}, args...)...)
			eventually(t, "openssl s_server accepts connections", func() bool { return server.out.contains("ACCEPT") || server.done() })
			if !server.done() {
				return address
			}
		}
		t.Fatal("openssl s_server found its port in use, five times")
		return ""
	}
	demanding := []string{"-Verify", "1", "-verify_return_error"}
	g := startGateway(t)
	g.apply(
		certificate("client", a.client), certificate("revoked", revoked), certificate("stranger", clientCert(t, other, "stranger")),
		trustBundle("ca", a.ca),
	)
	for _, c := range []struct {
		name   string
		args   []string
		change func(u *adminv1.UpstreamTls)
		only   string
		reason adminv1.Reason
		facts  []string
	}{
		{"good", demanding, nil, "", adminv1.Reason_REASON_UNSPECIFIED, []string{"completed the handshake"}},
		{"required", demanding, func(u *adminv1.UpstreamTls) { u.Certificate = "" }, "", adminv1.Reason_REASON_CLIENT_CERTIFICATE_REQUIRED, []string{"requires a client certificate"}},
		{"rejected", demanding, func(u *adminv1.UpstreamTls) { u.Certificate = "stranger" }, "", adminv1.Reason_REASON_CLIENT_CERTIFICATE_REJECTED, []string{"CN=stranger"}},
		{"revoked", append([]string{"-CRL", filepath.Join(dir, "crl.pem"), "-crl_check"}, demanding...),
			func(u *adminv1.UpstreamTls) { u.Certificate = "revoked" }, "", adminv1.Reason_REASON_CLIENT_CERTIFICATE_REJECTED, []string{"CN=revoked client"}},
		{"group", []string{"-groups", "P-521"}, func(u *adminv1.UpstreamTls) { u.Groups = []string{"X25519"} }, "1-3", adminv1.Reason_REASON_NO_COMMON_GROUP, []string{"X25519", "with tls.groups"}},
		{"cipher", []string{"-cipher", "ECDHE-ECDSA-AES128-GCM-SHA256"}, func(u *adminv1.UpstreamTls) {
			u.CipherSuites = []string{"ECDHE-ECDSA-AES256-GCM-SHA384"}
		}, "1-2", adminv1.Reason_REASON_NO_COMMON_CIPHER, []string{"TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384"}},
		{"too-new", []string{"-tls1_3"}, nil, "1-2", adminv1.Reason_REASON_PROTOCOL_VERSION, []string{"TLS 1.2"}},
		{"too-old", []string{"-tls1_2"}, nil, "1-3", adminv1.Reason_REASON_PROTOCOL_VERSION, []string{"TLS 1.3"}},
	} {
		for _, v := range bothVersions {
			if c.only != "" && c.only != v.name {
				continue
			}
			t.Run(c.name+"-"+v.name, func(t *testing.T) {
				settings := a.settings()
				settings.MinVersion, settings.MaxVersion = v.ours, v.ours
				if c.change != nil {
					c.change(settings)
				}
				name := c.name + "-" + v.name
				address := serve(t, c.args...)
				g.apply(upstream(name, settings, address), listener(name, protocolHTTP, name))
				code, body := get(t, "http://"+g.address(name)+"/")
				if want := c.reason == adminv1.Reason_REASON_UNSPECIFIED; (code == 200) != want || !want && (code != 502 || len(body) > 100) {
					t.Errorf("%d %q", code, body)
				}
				if c.reason != adminv1.Reason_REASON_UNSPECIFIED {
					expectReason(t, g, name, c.reason)
				}
				expectProbe(t, g, name, c.reason, c.facts, nil)
				expectProbeCommand(t, g, name, c.reason)
			})
		}
	}
}
