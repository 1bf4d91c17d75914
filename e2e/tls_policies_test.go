// One listener has a TLS policy for each host. OpenSSL and curl get the policy of
// their SNI, cannot resume sessions or send requests across policies, and are routed
// by the identity in their certificate.

package e2e

import (
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/drawbridge-gateway/drawbridge/certs/pki"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

func TestTLSPolicies(t *testing.T) {
	t.Parallel()
	openssl, curl := need(t, "openssl"), need(t, "curl")
	a, dir := newAuthority(t), shortDir(t)
	server := issue(t, a.ca, pki.LeafOptions{DNSNames: []string{"open.test", "mtls.test", "*.mtls.test"}, Usage: pki.Server})
	respond := func(name, body string, m *adminv1.RouteMatch) *adminv1.Route {
		return &adminv1.Route{Name: name, Listeners: []string{"web"}, Match: m, Action: &adminv1.Route_Respond{Respond: &adminv1.Respond{Body: body}}}
	}
	web := listener("web", protocolHTTP, "")
	web.Tls = &adminv1.ServerTls{Certificates: []string{"front"}, Policies: []*adminv1.TlsPolicy{{
		Hosts: []string{"mtls.test", "*.mtls.test"}, Certificates: []string{"front"},
		ClientAuth: adminv1.ClientAuth_CLIENT_AUTH_REQUIRED, ClientTrustBundles: []string{"clients"},
	}}}
	// Only a policy uses this bundle and this certificate.
	g := startGateway(t)
	g.apply(trustBundle("clients", a.ca), certificate("front", server), web, respond("all", "everybody", nil),
		respond("staff", "staff", &adminv1.RouteMatch{ClientIdentity: &adminv1.ClientIdentityMatch{SubjectAltNames: []string{"spiffe://corp/staff/*"}}}))
	_, port, _ := strings.Cut(g.address("web"), ":")

	ca := writeFile(t, filepath.Join(dir, "ca.pem"), a.ca.RootPEM())
	file := func(name string, uri string) string {
		issued := issue(t, a.ca, pki.LeafOptions{CommonName: name, URIs: []string{uri}, Usage: pki.Client})
		return writeFile(t, filepath.Join(dir, name+".pem"), append(issued.ChainPEM, issued.KeyPEM...))
	}
	alice, guest := file("alice", "spiffe://corp/staff/alice"), file("guest", "spiffe://corp/guests/guest")

	// ask makes curl send a request for host on a connection with the SNI sni.
	ask := func(sni, host, cert string, flags ...string) string {
		args := []string{"-sS", "--max-time", "90", "--cacert", ca, "--resolve", sni + ":" + port + ":127.0.0.1", "-w", " %{http_code}", "-H", "Host: " + host}
		if cert != "" {
			args = append(args, "--cert", cert)
		}
		return strings.TrimSpace(command(t, curl, append(append(args, flags...), "https://"+sni+":"+port+"/")...).stdout)
	}
	for _, version := range []string{"--http1.1", "--http2"} {
		for _, c := range []struct{ sni, host, cert, want string }{
			{"open.test", "open.test", "", "everybody 200"},
			{"open.test", "mtls.test", "", "misdirected request\n 421"},
			{"open.test", "MTLS.test.:443", "", "misdirected request\n 421"},
			{"open.test", "a.mtls.test", alice, "misdirected request\n 421"},
			{"mtls.test", "mtls.test", alice, "staff 200"},
			{"mtls.test", "a.mtls.test", guest, "everybody 200"},
			{"a.mtls.test", "open.test", alice, "misdirected request\n 421"},
			{"mtls.test", "mtls.test", "", "000"},
		} {
			if got := ask(c.sni, c.host, c.cert, version); got != c.want {
				t.Errorf("%s, SNI %s, host %s, certificate %q: %q, want %q", version, c.sni, c.host, filepath.Base(c.cert), got, c.want)
			}
		}
	}

	// A session of open.test gives no access to mtls.test.
	for _, version := range []string{"-tls1_2", "-tls1_3"} {
		session := filepath.Join(dir, "session"+version)
		get := func(name string, flags ...string) result {
			args := append([]string{"s_client", "-connect", "127.0.0.1:" + port, "-servername", name, "-CAfile", ca, version, "-ign_eof"}, flags...)
			return commandInput(t, "GET / HTTP/1.1\r\nHost: "+name+"\r\nConnection: close\r\n\r\n", openssl, args...)
		}
		if r := get("open.test", "-sess_out", session); !strings.Contains(r.stdout, "everybody") {
			t.Fatalf("%s: %v", version, r)
		}
		if r := get("open.test", "-sess_in", session); !strings.Contains(r.stdout, "Reused, TLS") {
			t.Errorf("%s: the session is not resumed under its own name: %v", version, r)
		}
		if r := get("mtls.test", "-sess_in", session); strings.Contains(r.stdout, "everybody") || strings.Contains(r.stdout, "Reused, TLS") {
			t.Errorf("%s: the session of open.test was used under mtls.test: %v", version, r)
		}
		if r := get("mtls.test", "-sess_in", session, "-cert", alice, "-key", alice); !strings.Contains(r.stdout, "staff") || strings.Contains(r.stdout, "Reused, TLS") {
			t.Errorf("%s: with a certificate, and a session of open.test: %v", version, r)
		}
	}

	if r := g.cli("explain", "web", "--host", "mtls.test", "--client-cert", alice); r.code != 0 || !strings.Contains(r.stdout, "by route staff") || !strings.Contains(r.stdout, "tls.policies[0] for mtls.test") {
		t.Errorf("%v", r)
	}
	if r := g.cli("explain", "web", "--sni", "open.test", "--host", "mtls.test"); r.code != 1 || !strings.Contains(r.stdout, "421") {
		t.Errorf("%v", r)
	}
	if r := g.cli("delete", "trust-bundle", "clients"); r.code == 0 || !strings.Contains(r.stderr, `tls.policies[0].client_trust_bundles[0]`) {
		t.Errorf("a bundle that a policy uses was deleted: %v", r)
	}

	// Public CAs issue no certificates for clientAuth.
	public := issue(t, a.ca, pki.LeafOptions{CommonName: "public", DNSNames: []string{"partner.test"}, Usage: pki.Server})
	partner := writeFile(t, filepath.Join(dir, "partner.pem"), append(public.ChainPEM, public.KeyPEM...))
	if got := ask("mtls.test", "mtls.test", partner); got != "000" {
		t.Errorf("a server's certificate was accepted from a client: %q", got)
	}
	lenient := proto.Clone(web).(*adminv1.Listener)
	lenient.Tls.Policies[0].AllowMissingClientAuthUsage = true
	change := g.apply(lenient)
	if len(change.GetWarnings()) != 1 || change.GetWarnings()[0].GetCode() != adminv1.WarningCode_WARNING_CODE_CLIENT_AUTH_USAGE {
		t.Errorf("%v", change)
	}
	if got := ask("mtls.test", "mtls.test", partner); got != "everybody 200" {
		t.Errorf("allow_missing_client_auth_usage: %q", got)
	}
}
