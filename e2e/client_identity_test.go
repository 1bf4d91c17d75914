// The gateway forwards the identity of a client's certificate to the upstream,
// in fields that clients cannot forge, and it rewrites the path. curl presents
// the certificate, and nginx is the upstream.

package e2e

import (
	"encoding/base64"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"

	"github.com/drawbridge-gateway/drawbridge/certs/pki"
)

func TestClientIdentityReachesTheUpstream(t *testing.T) {
	t.Parallel()
	curl := need(t, "curl")
	a := newAuthority(t)
	back := startNginx(t, nginxConfig{
		ports: 1,
		files: nginxFiles(a.ca, a.server),
		http: func(n *nginx) string {
			// nginx can be configured to accept underscores in field names.
			return fmt.Sprintf(`underscores_in_headers on;
  server { listen %s ssl http2; %s
    location / { return 200 "$http_x_client_cert_subject|$http_x_client_cert_san|$http_x_client_cert_fingerprint|$http_client_cert|$uri|$http_x_request_id|$http_x_who"; } }`, n.address(0), n.mutualTLS())
		},
	})
	alice := issue(t, a.ca, pki.LeafOptions{Usage: pki.Client, CommonName: "alice, of sales", URIs: []string{"spiffe://example.com/alice"}})
	front := func(name string, fields adminv1.ClientCertificateFields, auth adminv1.ClientAuth) *adminv1.Listener {
		l := listener(name, protocolHTTP, "back")
		l.Tls = &adminv1.ServerTls{Certificates: []string{"server"}, ClientAuth: auth, ClientTrustBundles: []string{"ca"}}
		l.Http = &adminv1.HttpOptions{ClientCertificateFields: fields, RequestIdField: "X-Request-Id"}
		return l
	}
	const (
		none     = adminv1.ClientCertificateFields_CLIENT_CERTIFICATE_FIELDS_NONE
		identity = adminv1.ClientCertificateFields_CLIENT_CERTIFICATE_FIELDS_IDENTITY
		rfc9440  = adminv1.ClientCertificateFields_CLIENT_CERTIFICATE_FIELDS_RFC9440
		required = adminv1.ClientAuth_CLIENT_AUTH_REQUIRED
		optional = adminv1.ClientAuth_CLIENT_AUTH_OPTIONAL
	)
	names := []string{"identity", "rfc9440", "optional", "none"}
	v2 := &adminv1.Route{
		Name: "v2", Listeners: names,
		Match: &adminv1.RouteMatch{Path: &adminv1.PathMatch{Kind: &adminv1.PathMatch_Prefix{Prefix: "/v2/"}}},
		Action: &adminv1.Route_Forward{Forward: &adminv1.Forward{
			Upstreams: []*adminv1.WeightedUpstream{{Name: "back"}},
			Rewrite:   &adminv1.Rewrite{Kind: &adminv1.Rewrite_Prefix{Prefix: "/internal"}},
		}},
		RequestHeaders: &adminv1.HeaderRules{Set: []*adminv1.HeaderValue{{Name: "X-Who", Value: "${client_address} ${tls_version} ${client_certificate_subject} ${path}"}}},
	}
	g := startGateway(t)
	g.apply(trustBundle("ca", a.ca), certificate("client", a.client), certificate("server", a.server), upstream("back", a.settings(), back.address(0)),
		front("identity", identity, required), front("rfc9440", rfc9440, required), front("optional", identity, optional), front("none", none, required), v2)

	dir := t.TempDir()
	ca := writeFile(t, filepath.Join(dir, "ca.pem"), a.ca.RootPEM())
	cert := writeFile(t, filepath.Join(dir, "alice.pem"), alice.ChainPEM)
	key := writeFile(t, filepath.Join(dir, "alice.key"), alice.KeyPEM)
	const subject, who = `CN=alice\, of sales`, `127.0.0.1 TLSv1.3 CN=alice\, of sales /v2/a/b`
	for _, c := range []struct {
		listener string
		shows    bool // curl presents its certificate
		want     string
	}{
		{"identity", true, subject + "|URI:spiffe://example.com/alice|" + fingerprint(alice) + "||/internal/a/b|id-1|" + who},
		{"rfc9440", true, "|||:" + base64.StdEncoding.EncodeToString(alice.Leaf.Raw) + ":|/internal/a/b|id-1|" + who},
		{"optional", true, subject + "|URI:spiffe://example.com/alice|" + fingerprint(alice) + "||/internal/a/b|id-1|" + who},
		{"optional", false, "||||/internal/a/b|id-1|127.0.0.1 TLSv1.3  /v2/a/b"},
		{"none", true, "||||/internal/a/b|id-1|" + who},
	} {
		for _, version := range []string{"--http1.1", "--http2"} {
			_, port, _ := strings.Cut(g.address(c.listener), ":")
			args := []string{version, "-sS", "--cacert", ca, "--connect-to", "::127.0.0.1:" + port, "--path-as-is",
				"-H", "X-Client-Cert-Subject: CN=admin", "-H", "x_client_cert_subject: CN=admin", "-H", "X-Client_Cert-San: DNS:admin", "-H", "X-Client-Cert-Fingerprint: 00",
				"-H", "Client-Cert: :AAAA:", "-H", "client_cert: :AAAA:", "-H", "X-Request-Id: id-1", "-H", "X_Who: admin",
				"https://" + serverName + "/x/..//v2/%61/b"}
			if version == "--http1.1" {
				args = append(args, "-H", "Connection: X-Client-Cert-Subject, X-Client-Cert-San, Client-Cert, X-Who")
			}
			if c.shows {
				args = append(args, "--cert", cert, "--key", key)
			}
			out := command(t, curl, args...)
			if out.code != 0 || out.stdout != c.want {
				t.Errorf("%s, certificate %v, %s: %d %q %s\nwant %q", c.listener, c.shows, version, out.code, out.stdout, out.stderr, c.want)
			}
		}
	}
	r := g.cli("explain", "identity", "--host", serverName, "--sni", serverName, "--path", "/v2/a")
	if r.code != 0 || !strings.Contains(r.stdout, "sent as /internal/a\n") {
		t.Errorf("explain: %s", r)
	}
}
