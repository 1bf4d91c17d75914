// An OpenLDAP that requires TLS and a client certificate serves clients of
// plaintext LDAP.

package e2e

import (
	"path/filepath"
	"strings"
	"testing"

	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

func startSlapd(t testing.TB, a *authority) *daemon {
	t.Helper()
	program := needFile(t, "/usr/sbin/slapd")
	dir := shortDir(t)
	a.writeServer(t, dir)
	conf := writeFile(t, filepath.Join(dir, "slapd.conf"), []byte(strings.ReplaceAll(`
include /etc/ldap/schema/core.schema
modulepath /usr/lib/ldap
moduleload back_ldif
TLSCertificateFile DIR/server.pem
TLSCertificateKeyFile DIR/server.key
TLSCACertificateFile DIR/ca.pem
TLSVerifyClient demand
security tls=128
database ldif
directory DIR
suffix "dc=example,dc=com"
rootdn "cn=admin,dc=example,dc=com"
rootpw secret
`, "DIR", dir)))
	as := unprivileged(t, "openldap", dir)
	return startDaemon(t, 1, func(addresses []string) []string {
		return append(as, program, "-f", conf, "-h", "ldap://"+addresses[0], "-d", "0")
	})
}

func TestOpenLDAPBehindMutualTLS(t *testing.T) {
	t.Parallel()
	a := newAuthority(t)
	search, add := need(t, "ldapsearch"), need(t, "ldapadd")
	d := startSlapd(t, a)
	g := startGateway(t)
	u := a.startsTLS("ldap", adminv1.Starttls_STARTTLS_LDAP, d.addresses[0])
	u.Pool = &adminv1.Pool{Warm: 1}
	u.HealthCheck = &adminv1.HealthCheck{Kind: &adminv1.HealthCheck_Tls{Tls: &adminv1.TlsCheck{}}}
	g.apply(trustBundle("ca", a.ca), certificate("client", a.client), u, listener("ldap", protocolTCP, "ldap"))
	as := func(address string) []string {
		return []string{"-x", "-H", "ldap://" + address, "-D", "cn=admin,dc=example,dc=com", "-w", "secret"}
	}
	if r := command(t, search, append(as(d.addresses[0]), "-b", "", "-s", "base")...); r.code == 0 || !strings.Contains(r.stderr, "TLS confidentiality required") {
		t.Fatalf("the server accepts plaintext: %v", r)
	}
	if r := g.probe("ldap"); r.GetOutcome() != adminv1.ProbeOutcome_PROBE_OUTCOME_OK || !r.GetClientCertificateSent() {
		t.Errorf("the probe: %v", r)
	}
	eventually(t, "a connection is warm", func() bool { return g.upstream("ldap").GetEndpoints()[0].GetWarm().GetReady() > 0 })
	const tree = "dn: dc=example,dc=com\nobjectClass: dcObject\nobjectClass: organization\ndc: example\no: through the bridge\n"
	if r := commandInput(t, tree, add, as(g.address("ldap"))...); r.code != 0 {
		t.Errorf("ldapadd: %v", r)
	}
	if r := command(t, search, append(as(g.address("ldap")), "-LLL", "-b", "dc=example,dc=com")...); r.code != 0 || r.stdout != tree+"\n" {
		t.Errorf("ldapsearch: %v", r)
	}
	// If the client starts TLS itself, the server gets a second request to start
	// TLS.
	if r := command(t, search, append(as(g.address("ldap")), "-ZZ", "-b", "", "-s", "base")...); r.code == 0 || !strings.Contains(r.stderr, "TLS already started") {
		t.Errorf("a client that starts TLS: %v", r)
	}

	// A listener can start TLS with the client.
	g.apply(certificate("server", a.server), startsTLSListener("front", adminv1.Starttls_STARTTLS_LDAP, "ldap"))
	root := writeFile(t, filepath.Join(shortDir(t), "ca.pem"), a.ca.RootPEM())
	trusting := append([]string{"LDAPTLS_CACERT=" + root, search}, as(g.address("front"))...)
	if r := command(t, "env", append(trusting, "-ZZ", "-LLL", "-b", "dc=example,dc=com")...); r.code != 0 || r.stdout != tree+"\n" {
		t.Errorf("a client that starts TLS at the gateway: %v", r)
	}
	if r := command(t, "env", append(trusting, "-b", "", "-s", "base")...); r.code == 0 || !strings.Contains(r.stderr, "Confidentiality required (13)") {
		t.Errorf("a client in plaintext: %v", r)
	}
	if r := command(t, need(t, "openssl"), "s_client", "-connect", g.address("front"), "-starttls", "ldap", "-CAfile", root, "-verify_return_error"); r.code != 0 {
		t.Errorf("openssl s_client: %v", r)
	}
}
