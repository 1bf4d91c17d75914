// PostgreSQL clients that verify the gateway's certificate reach a server without
// TLS, and a server that requires a client certificate, which they lack.

package e2e

import (
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

// startsTLSListener returns a listener whose clients request TLS in a protocol.
func startsTLSListener(name string, protocol adminv1.Starttls, upstream string) *adminv1.Listener {
	l := listener(name, protocolTCP, upstream)
	l.Tls = &adminv1.ServerTls{Certificates: []string{"server"}, Starttls: protocol}
	return l
}

// plaintextUpstream returns an upstream without TLS.
func plaintextUpstream(name, address string) *adminv1.Upstream {
	return &adminv1.Upstream{Name: name, Transport: &adminv1.Upstream_Plaintext{Plaintext: &adminv1.Plaintext{}}, Endpoints: []*adminv1.Endpoint{{Address: address}}}
}

func TestPostgresClientsStartTLS(t *testing.T) {
	t.Parallel()
	a := postgresAuthority(t)
	p := startPostgres(t, a, plaintextToo)
	g := startGateway(t)
	mutual := startsTLSListener("mutual", adminv1.Starttls_STARTTLS_POSTGRES, "plain")
	mutual.Tls.ClientAuth, mutual.Tls.ClientTrustBundles = adminv1.ClientAuth_CLIENT_AUTH_REQUIRED, []string{"ca"}
	optional := startsTLSListener("optional", adminv1.Starttls_STARTTLS_POSTGRES, "plain")
	optional.Tls.StarttlsOptional = true
	change := g.apply(trustBundle("ca", a.ca), certificate("client", a.client), certificate("server", a.server),
		plaintextUpstream("plain", p.addresses[0]), a.startsTLS("secure", adminv1.Starttls_STARTTLS_POSTGRES, p.addresses[0]),
		startsTLSListener("plain", adminv1.Starttls_STARTTLS_POSTGRES, "plain"), startsTLSListener("both", adminv1.Starttls_STARTTLS_POSTGRES, "secure"), mutual, optional)
	if len(change.GetWarnings()) != 1 || change.GetWarnings()[0].GetCode() != adminv1.WarningCode_WARNING_CODE_PLAINTEXT_CLIENTS {
		t.Errorf("the warnings are %v", change.GetWarnings())
	}
	dir := shortDir(t)
	root := writeFile(t, filepath.Join(dir, "ca.pem"), a.ca.RootPEM())
	cert := writeFile(t, filepath.Join(dir, "client.pem"), a.client.ChainPEM)
	key := filepath.Join(dir, "client.key")
	if err := os.WriteFile(key, a.client.KeyPEM, 0o600); err != nil { // psql rejects keys that other users may read
		t.Fatal(err)
	}
	through := func(listener, options string) string {
		_, port, _ := net.SplitHostPort(g.address(listener))
		return fmt.Sprintf("host=%s hostaddr=127.0.0.1 port=%s user=bridge dbname=postgres %s", serverName, port, options)
	}
	verified := "sslmode=verify-full sslrootcert=" + root
	const who = "select ssl, coalesce(client_dn, '') from pg_stat_ssl where pid = pg_backend_pid()"
	for _, c := range []struct{ listener, options, want, stderr string }{
		{"plain", "sslmode=require", "f|\n", ""},
		{"plain", verified, "f|\n", ""},
		{"plain", "sslmode=disable", "", "this server requires TLS"},
		{"both", verified, "t|/CN=bridge\n", ""},
		{"mutual", verified, "", "certificate required"},
		{"mutual", verified + " sslcert=" + cert + " sslkey=" + key, "f|\n", ""},
		{"optional", "sslmode=disable gssencmode=disable", "f|\n", ""},
		{"optional", verified, "f|\n", ""},
	} {
		if r := p.query(t, through(c.listener, c.options), who); r.stdout != c.want || !strings.Contains(r.stderr, c.stderr) || (r.code == 0) != (c.stderr == "") {
			t.Errorf("%s, %s: %v", c.listener, c.options, r)
		}
	}
	pgbench(t, p, through("both", verified))

	// libpq up to version 16 sends CancelRequest in plaintext, even for a session over
	// TLS.
	asleep := start(t, p.psql, "-Xc", "select pg_sleep(601)", through("both", verified))
	eventually(t, "the statement runs", func() bool {
		return p.query(t, p.local(), "select count(*) from pg_stat_activity where state = 'active' and query = 'select pg_sleep(601)'").stdout == "1\n"
	})
	asleep.signal(os.Interrupt)
	if code := asleep.wait(); code == 0 || !strings.Contains(asleep.out.String(), "canceling statement due to user request") {
		t.Errorf("canceled: exit code %d, %s", code, asleep.out.String())
	}

	// GSSENCRequest is answered, and SSLRequest may follow.
	conn := dial(t, g.address("plain"))
	for _, code := range []string{"\x04\xd2\x16\x30", "\x04\xd2\x16\x2f"} {
		answer := make([]byte, 1)
		if _, err := io.WriteString(conn, "\x00\x00\x00\x08"+code); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(conn, answer); err != nil || !strings.Contains("NS", string(answer)) {
			t.Fatalf("%q is answered with %q, %v", code, answer, err)
		}
	}
	// TLS from the first byte needs the protocol of PostgreSQL 17.
	openssl := need(t, "openssl")
	for alpn, ok := range map[string]bool{"postgresql": true, "h2": false} {
		r := command(t, openssl, "s_client", "-connect", g.address("plain"), "-servername", serverName, "-CAfile", root, "-verify_return_error", "-alpn", alpn)
		if got := r.code == 0 && strings.Contains(r.stdout, "ALPN protocol: postgresql"); got != ok {
			t.Errorf("direct TLS with ALPN %s: %v", alpn, r)
		}
	}
	if r := command(t, openssl, "s_client", "-connect", g.address("plain"), "-starttls", "postgres", "-servername", serverName, "-CAfile", root, "-verify_return_error"); r.code != 0 || !strings.Contains(r.stdout, "Verify return code: 0") {
		t.Errorf("openssl s_client: %v", r)
	}
}
