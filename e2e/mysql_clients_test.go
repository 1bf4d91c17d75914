// MySQL clients that verify the gateway's certificate reach a MariaDB in plaintext, and
// a MariaDB that requires a client certificate, which they lack. A server with MySQL 8's
// authentication gets their password over TLS or encrypted with its key, even just after
// a restart.

package e2e

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/go-sql-driver/mysql"
	"google.golang.org/protobuf/types/known/durationpb"

	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

// secureMySQL returns the mariadb client's options for verified TLS.
func secureMySQL(address, root, user, password string, more ...string) []string {
	host, port, _ := net.SplitHostPort(address)
	return append([]string{"--no-defaults", "--protocol=tcp", "--ssl", "--ssl-verify-server-cert", "--ssl-ca=" + root, "-h" + host, "-P" + port, "-u" + user, "-p" + password}, more...)
}

// goMySQL returns a database handle of Go's driver with the TLS settings.
func goMySQL(t testing.TB, address, password string, config *tls.Config) *sql.DB {
	t.Helper()
	c := mysql.NewConfig()
	c.Net, c.Addr, c.User, c.Passwd, c.TLS = "tcp", address, "native", password, config
	connector, err := mysql.NewConnector(c)
	if err != nil {
		t.Fatal(err)
	}
	db := sql.OpenDB(connector)
	t.Cleanup(func() { _ = db.Close() })
	return db
}

func TestMySQLClientsStartTLS(t *testing.T) {
	t.Parallel()
	a := newAuthority(t)
	m := startMariaDB(t, a)
	if r := m.local(t, `
		create user native identified via mysql_native_password using password('secret');
		create user ed identified via ed25519 using password('secret');
		create user x509 identified via mysql_native_password using password('secret') require x509`); r.code != 0 {
		t.Fatal(r)
	}
	root := writeFile(t, filepath.Join(m.dir, "root.pem"), a.ca.RootPEM())
	cert := writeFile(t, filepath.Join(m.dir, "client.pem"), a.client.ChainPEM)
	key := writeFile(t, filepath.Join(m.dir, "client.key"), a.client.KeyPEM)
	g := startGateway(t)
	start := func(name, upstream string) *adminv1.Listener {
		return startsTLSListener(name, adminv1.Starttls_STARTTLS_MYSQL, upstream)
	}
	mutual, optional, named := start("mutual", "plain"), start("optional", "both"), start("named", "plain")
	mutual.Tls.ClientAuth, mutual.Tls.ClientTrustBundles = adminv1.ClientAuth_CLIENT_AUTH_REQUIRED, []string{"ca"}
	optional.Tls.StarttlsOptional = true
	named.Tls.RejectUnknownSni = true
	change := g.apply(trustBundle("ca", a.ca), certificate("client", a.client), certificate("server", a.server),
		plaintextUpstream("plain", m.addresses[0]), a.startsTLS("both", adminv1.Starttls_STARTTLS_MYSQL, m.addresses[0]),
		start("plain", "plain"), start("both", "both"), mutual, optional, named)
	if len(change.GetWarnings()) != 1 || change.GetWarnings()[0].GetCode() != adminv1.WarningCode_WARNING_CODE_PLAINTEXT_CLIENTS {
		t.Errorf("the warnings are %v", change.GetWarnings())
	}
	const encrypted = "select user(), variable_value <> '' from information_schema.session_status where variable_name = 'Ssl_cipher'"
	for _, c := range []struct{ listener, user, password, more, want, stderr string }{
		{"plain", "native", "secret", "", "native@127.0.0.1\t0", ""},
		{"plain", "ed", "secret", "", "ed@127.0.0.1\t0", ""},
		{"plain", "native", "wrong", "", "", "1045"},
		{"plain", "x509", "secret", "", "", "1045"},
		{"both", "native", "secret", "", "native@127.0.0.1\t1", ""},
		{"both", "ed", "secret", "", "ed@127.0.0.1\t1", ""},
		{"both", "x509", "secret", "", "x509@127.0.0.1\t1", ""},
		{"both", "x509", "wrong", "", "", "1045"},
		{"mutual", "native", "secret", "--ssl-cert=" + cert + " --ssl-key=" + key, "native@127.0.0.1\t0", ""},
		{"mutual", "native", "secret", "", "", "certificate"},
		{"optional", "x509", "secret", "", "x509@127.0.0.1\t1", ""},
	} {
		args := secureMySQL(g.address(c.listener), root, c.user, c.password, append(strings.Fields(c.more), "-BNe", encrypted)...)
		if r := command(t, m.client, args...); !strings.HasPrefix(r.stdout, c.want) || !strings.Contains(r.stderr, c.stderr) || (r.code == 0) != (c.stderr == "") {
			t.Errorf("%s, %s with %q: %v", c.listener, c.user, c.password, r)
		}
	}
	if r := m.query(t, g.address("plain"), "native", "secret", "select 1"); r.code == 0 || !strings.Contains(r.stderr, "this server requires TLS (--ssl)") {
		t.Errorf("a client in plaintext: %v", r)
	}
	if r := m.query(t, g.address("optional"), "x509", "secret", encrypted); !strings.HasPrefix(r.stdout, "x509@127.0.0.1\t1") {
		t.Errorf("a client in plaintext, where TLS is optional: %v", r)
	}
	// The client gets the server's own greeting: its version and the number of the session.
	for _, listener := range []string{"plain", "both"} {
		r := command(t, m.client, secureMySQL(g.address(listener), root, "native", "secret", "-BNe", "select concat('session ', connection_id());\nstatus")...)
		id, _, _ := strings.Cut(strings.TrimPrefix(r.stdout, "session "), "\n")
		for _, want := range []string{"Connection id:\t\t" + id + "\n", "Cipher in use is TLS_", "Server version:\t\t10."} {
			if !strings.Contains(r.stdout, want) {
				t.Errorf("%s: the client's status lacks %q: %v", listener, want, r)
			}
		}
	}

	// Results are the same as without the gateway, including a result of 10 MB.
	const rows = "select seq, repeat(md5(seq), 300) from mysql.seq_1_to_1000 order by seq"
	if r := m.local(t, "grant select on mysql.* to native"); r.code != 0 {
		t.Fatal(r)
	}
	direct := m.local(t, rows)
	for _, listener := range []string{"plain", "both"} {
		if r := command(t, m.client, secureMySQL(g.address(listener), root, "native", "secret", "-BNe", rows)...); r.stdout != direct.stdout || r.code != 0 || len(r.stdout) < 9_000_000 {
			t.Errorf("%s: directly %d bytes, through the gateway %d bytes, %s", listener, len(direct.stdout), len(r.stdout), r.stderr)
		}
	}

	verified := &tls.Config{ServerName: serverName, RootCAs: pool(a.ca)}
	for _, listener := range []string{"plain", "both", "optional", "named"} {
		db := goMySQL(t, g.address(listener), "secret", verified)
		for i := range 20 {
			var got int
			if err := db.QueryRowContext(longContext(t), "select ? + 1", i).Scan(&got); err != nil || got != i+1 {
				t.Fatalf("%s, Go's driver: %d, %v", listener, got, err)
			}
		}
		var refused *mysql.MySQLError
		if err := goMySQL(t, g.address(listener), "wrong", verified).PingContext(longContext(t)); !errors.As(err, &refused) || refused.Number != 1045 {
			t.Errorf("%s, Go's driver with a wrong password: %v", listener, err)
		}
	}
	m.restart(t)
	for _, listener := range []string{"plain", "both"} {
		for _, user := range []string{"native", "ed"} {
			if r := command(t, m.client, secureMySQL(g.address(listener), root, user, "secret", "-BNe", "select 1")...); r.stdout != "1\n" {
				t.Errorf("%s, %s, right after a restart: %v", listener, user, r)
			}
		}
		if err := goMySQL(t, g.address(listener), "secret", verified).PingContext(longContext(t)); err != nil {
			t.Errorf("%s, Go's driver, right after a restart: %v", listener, err)
		}
	}
	if err := goMySQL(t, g.address("named"), "secret", &tls.Config{InsecureSkipVerify: true}).PingContext(longContext(t)); err == nil {
		t.Error("a client without an SNI was admitted, where unknown ones are rejected")
	}
	if r := command(t, need(t, "openssl"), "s_client", "-connect", g.address("plain"), "-starttls", "mysql", "-servername", serverName, "-CAfile", root, "-verify_return_error"); !strings.Contains(r.stdout, "Verify return code: 0") {
		t.Errorf("openssl s_client: %v", r)
	}
	for _, f := range g.upstream("both").GetEndpoints()[0].GetFailures() {
		// MariaDB ends sessions without close_notify, and some with a reset.
		if r := f.GetReason(); r != adminv1.Reason_REASON_UPSTREAM_TRUNCATED && r != adminv1.Reason_REASON_UPSTREAM_RESET {
			t.Errorf("failures of clients count against the endpoint: %v", f)
		}
	}
}

func TestCachingSHA2PasswordOfClientsWithTLS(t *testing.T) {
	t.Parallel()
	a := newAuthority(t)
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	plainServer, secureServer := &mysql8{key: key}, &mysql8{config: a.serverConfig(t)}
	g := startGateway(t)
	g.apply(trustBundle("ca", a.ca), certificate("client", a.client), certificate("server", a.server),
		plaintextUpstream("plain", serveConns(t, nil, plainServer.serve)), a.startsTLS("both", adminv1.Starttls_STARTTLS_MYSQL, serveConns(t, nil, secureServer.serve)),
		startsTLSListener("plain", adminv1.Starttls_STARTTLS_MYSQL, "plain"), startsTLSListener("both", adminv1.Starttls_STARTTLS_MYSQL, "both"))
	root := writeFile(t, filepath.Join(shortDir(t), "root.pem"), a.ca.RootPEM())
	login := map[string]func(listener, password string) error{
		"Go's driver": func(listener, password string) error {
			return goMySQL(t, g.address(listener), password, &tls.Config{ServerName: serverName, RootCAs: pool(a.ca)}).PingContext(longContext(t))
		},
		"mariadb": func(listener, password string) error {
			if r := command(t, need(t, "mariadb"), secureMySQL(g.address(listener), root, "bob", password, "-e", "do 1")...); r.code != 0 {
				return errors.New(r.stderr)
			}
			return nil
		},
	}
	for listener, server := range map[string]*mysql8{"plain": plainServer, "both": secureServer} {
		for name, login := range login {
			server.mu.Lock()
			server.cached, server.full, server.fast = false, 0, 0 // a restart empties the cache
			server.mu.Unlock()
			if err := login(listener, "wrong"); err == nil {
				t.Errorf("%s, %s logs in with a wrong password", listener, name)
			}
			for range 3 {
				if err := login(listener, "secret"); err != nil {
					t.Errorf("%s, %s: %v", listener, name, err)
				}
			}
			server.mu.Lock()
			if server.full != 1 || server.fast != 2 {
				t.Errorf("%s, %s: %d logins with the whole password and %d from the cache", listener, name, server.full, server.fast)
			}
			server.mu.Unlock()
		}
	}
	if strings.Contains(plainServer.received.String(), "secret") {
		t.Error("the password was sent in plaintext")
	}
	if strings.Contains(g.out.String(), "secret") {
		t.Error("the log has the password")
	}
}

// A client that would send its password as plain text gets an error, because the gateway
// does not send it to a server in plaintext.
func TestPasswordsAreNotSentToPlaintextServers(t *testing.T) {
	t.Parallel()
	a := newAuthority(t)
	received := make(chan string, 1)
	address := serveConns(t, nil, func(c net.Conn) {
		m := &mysql8{}
		_, _ = io.WriteString(c, packet(0, "\x0a8.4.0-test\x00\x01\x00\x00\x00"+mysql8Scramble[:8]+"\x00\xff\xf7\xff\x02\x00\xff\xdf\x15"+strings.Repeat("\x00", 10)+mysql8Scramble[8:]+"\x00mysql_native_password\x00"))
		m.read(c, 1)
		_, _ = io.WriteString(c, packet(2, "\xfemysql_clear_password\x00"))
		rest, _ := io.ReadAll(c)
		received <- string(rest)
	})
	g := startGateway(t)
	g.apply(certificate("server", a.server), plaintextUpstream("plain", address), startsTLSListener("plain", adminv1.Starttls_STARTTLS_MYSQL, "plain"))
	root := writeFile(t, filepath.Join(shortDir(t), "root.pem"), a.ca.RootPEM())
	r := command(t, need(t, "mariadb"), secureMySQL(g.address("plain"), root, "bob", "secret", "-e", "do 1")...)
	if r.code == 0 || !strings.Contains(r.stderr, "ERROR 1251") || !strings.Contains(r.stderr, `the plugin "mysql_clear_password" may send the password over it in the clear`) {
		t.Errorf("the client: %v", r)
	}
	if got := <-received; got != "" {
		t.Errorf("the server received %q", got)
	}
}

// A client that does not complete the upgrade is refused in time, with a reason in
// the access log. It does not count as a failure of the server.
func TestMySQLClientsThatDoNotStartTLS(t *testing.T) {
	t.Parallel()
	a := newAuthority(t)
	server := &mysql8{config: a.serverConfig(t)}
	logFile := filepath.Join(shortDir(t), "access.log")
	g := startGateway(t, "--access-log="+logFile)
	impatient, patient := startsTLSListener("impatient", adminv1.Starttls_STARTTLS_MYSQL, "db"), startsTLSListener("patient", adminv1.Starttls_STARTTLS_MYSQL, "db")
	impatient.Timeouts = &adminv1.ListenerTimeouts{Handshake: durationpb.New(500 * time.Millisecond)}
	patient.Timeouts = &adminv1.ListenerTimeouts{Handshake: durationpb.New(testTimeout)}
	g.apply(trustBundle("ca", a.ca), certificate("client", a.client), certificate("server", a.server),
		a.startsTLS("db", adminv1.Starttls_STARTTLS_MYSQL, serveConns(t, nil, server.serve)), impatient, patient)
	request := packet(1, "\x8d\xae\xff\x00\x00\x00\x00\x01\x2d"+strings.Repeat("\x00", 23))
	for i, c := range []struct{ listener, said, reason string }{
		{"impatient", "", "HANDSHAKE_TIMEOUT"},
		{"impatient", request[:20], "HANDSHAKE_TIMEOUT"},
		{"impatient", request, "HANDSHAKE_TIMEOUT"},
		{"impatient", request + "\x16\x03\x01\x00\x05", "HANDSHAKE_TIMEOUT"},
		{"patient", request + "secret", "STARTTLS_INJECTION"},
		{"patient", "GET / HTTP/1.1\r\n\r\n", "STARTTLS_REFUSED"},
	} {
		conn := dial(t, g.address(c.listener))
		_, _ = io.WriteString(conn, c.said) // the gateway may have closed the connection already
		_, _ = io.Copy(io.Discard, conn)
		var lines []string
		eventually(t, fmt.Sprintf("%d connections are in the access log", i+1), func() bool {
			text, _ := os.ReadFile(logFile)
			lines = strings.Split(strings.TrimSpace(string(text)), "\n")
			return strings.Count(string(text), "\n") > i
		})
		if last := lines[len(lines)-1]; !strings.Contains(last, `"`+c.reason+`"`) || strings.Contains(last, "secret") {
			t.Errorf("%q: the access log has %s, want %s", c.said, last, c.reason)
		}
	}
	if e := g.upstream("db").GetEndpoints()[0]; len(e.GetFailures()) != 0 {
		t.Errorf("failures of clients count against the endpoint: %v", e.GetFailures())
	}
}
