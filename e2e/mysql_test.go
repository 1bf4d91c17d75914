// A MariaDB that requires TLS and a client certificate serves clients in plaintext. So
// does a server with MySQL 8's authentication, even just after a restart, when it needs
// the password itself.

package e2e

import (
	"bytes"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"database/sql"
	"encoding/pem"
	"io"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	_ "github.com/go-sql-driver/mysql"
	"google.golang.org/protobuf/types/known/durationpb"

	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

// A mariaDB is a running MariaDB. The user root logs in over the unix socket.
type mariaDB struct {
	*daemon
	dir, client string
	args        []string
}

func startMariaDB(t testing.TB, a *authority) *mariaDB {
	t.Helper()
	program, install := needFile(t, "/usr/sbin/mariadbd"), need(t, "mariadb-install-db")
	m := &mariaDB{dir: shortDir(t), client: need(t, "mariadb")}
	a.writeServer(t, m.dir)
	as := unprivileged(t, "mysql", m.dir)
	data := filepath.Join(m.dir, "data")
	run(t, append(as, install, "--no-defaults", "--datadir="+data, "--auth-root-authentication-method=normal", "--skip-test-db")...)
	m.daemon = startDaemon(t, 1, func(addresses []string) []string {
		host, port, _ := net.SplitHostPort(addresses[0])
		m.args = append(as, program, "--no-defaults", "--datadir="+data, "--socket="+filepath.Join(m.dir, "sock"), "--pid-file="+filepath.Join(m.dir, "pid"),
			"--bind-address="+host, "--port="+port, "--skip-name-resolve", "--plugin-load-add=auth_ed25519", "--innodb-buffer-pool-size=16M", "--innodb-flush-log-at-trx-commit=0",
			"--ssl-cert="+filepath.Join(m.dir, "server.pem"), "--ssl-key="+filepath.Join(m.dir, "server.key"), "--ssl-ca="+filepath.Join(m.dir, "ca.pem"))
		return m.args
	})
	return m
}

// restart restarts the server at the same address.
func (m *mariaDB) restart(t testing.TB) {
	t.Helper()
	m.signal(syscall.SIGTERM)
	m.wait()
	m.process = start(t, m.args[0], m.args[1:]...)
	eventually(t, "MariaDB accepts connections again", func() bool { return m.done() || !refuses(m.addresses[0]) })
}

// local runs SQL as root.
func (m *mariaDB) local(t testing.TB, sql string) result {
	t.Helper()
	return command(t, m.client, "--no-defaults", "--socket="+filepath.Join(m.dir, "sock"), "-uroot", "-BNe", sql)
}

// query runs SQL over TCP in plaintext.
func (m *mariaDB) query(t testing.TB, address, user, password, sql string) result {
	t.Helper()
	return command(t, m.client, append(plainMySQL(address, user, password), "-BNe", sql)...)
}

func plainMySQL(address, user, password string) []string {
	host, port, _ := net.SplitHostPort(address)
	return []string{"--no-defaults", "--protocol=tcp", "--skip-ssl", "-h" + host, "-P" + port, "-u" + user, "-p" + password}
}

func TestMariaDBBehindMutualTLS(t *testing.T) {
	t.Parallel()
	a := newAuthority(t)
	m := startMariaDB(t, a)
	if r := m.local(t, `
		create user native identified via mysql_native_password using password('secret') require x509;
		create user ed identified via ed25519 using password('secret') require x509;
		create database shop; grant all on shop.* to native, ed; use shop;
		create table t (a int primary key, b longtext);
		insert into t select seq, repeat(md5(seq), 500) from seq_1_to_2000`); r.code != 0 {
		t.Fatal(r)
	}
	g := startGateway(t)
	u := a.startsTLS("db", adminv1.Starttls_STARTTLS_MYSQL, m.addresses[0])
	anonymous := a.startsTLS("anonymous", adminv1.Starttls_STARTTLS_MYSQL, m.addresses[0])
	anonymous.GetTls().Certificate = ""
	secure := listener("secure", protocolTCP, "db")
	secure.Tls = &adminv1.ServerTls{Certificates: []string{"server"}}
	g.apply(trustBundle("ca", a.ca), certificate("client", a.client), certificate("server", a.server), u, anonymous, listener("db", protocolTCP, "db"), listener("anonymous", protocolTCP, "anonymous"), secure)

	if r := m.query(t, m.addresses[0], "native", "secret", "select 1"); r.code == 0 || !strings.Contains(r.stderr, "Access denied") {
		t.Fatalf("the server accepts plaintext: %v", r)
	}
	for _, user := range []string{"native", "ed"} {
		if r := m.query(t, g.address("db"), user, "secret", "select user(), variable_value <> '' from information_schema.session_status where variable_name = 'Ssl_cipher'"); !strings.HasPrefix(r.stdout, user+"@127.0.0.1\t1") {
			t.Errorf("%s: %v", user, r)
		}
		if r := m.query(t, g.address("db"), user, "wrong", "select 1"); r.code == 0 || !strings.Contains(r.stderr, "1045") {
			t.Errorf("%s with a wrong password: %v", user, r)
		}
		if r := m.query(t, g.address("anonymous"), user, "secret", "select 1"); r.code == 0 || !strings.Contains(r.stderr, "Access denied") {
			t.Errorf("%s without a certificate: %v", user, r)
		}
	}
	m.restart(t)
	for _, user := range []string{"native", "ed"} {
		if r := m.query(t, g.address("db"), user, "secret", "select 1"); r.stdout != "1\n" {
			t.Errorf("%s, right after a restart: %v", user, r)
		}
	}
	if r := g.probe("db"); r.GetOutcome() != adminv1.ProbeOutcome_PROBE_OUTCOME_OK || !r.GetClientCertificateSent() || !strings.Contains(r.GetExplanation(), "agreed in MySQL to start TLS") {
		t.Errorf("the probe: %v", r)
	}
	// Checks begin after the restart, which they could find to be an outage.
	u.HealthCheck = &adminv1.HealthCheck{
		Kind: &adminv1.HealthCheck_Tls{Tls: &adminv1.TlsCheck{}}, Interval: durationpb.New(300 * time.Millisecond), Timeout: durationpb.New(testTimeout),
	}
	g.apply(u)
	eventually(t, "the health check passes", func() bool {
		return g.upstream("db").GetEndpoints()[0].GetHealth() == adminv1.EndpointHealth_ENDPOINT_HEALTH_UP
	})
	const rows = "select a, sha2(b, 256), length(b) from shop.t order by a"
	if direct, bridged := m.local(t, rows), m.query(t, g.address("db"), "native", "secret", rows); direct != bridged || direct.code != 0 {
		t.Errorf("results differ: directly %d bytes, through the gateway %d bytes: %v", len(direct.stdout), len(bridged.stdout), bridged)
	}
	big := "select repeat('x', 10000000)"
	if r := m.query(t, g.address("db"), "native", "secret", big); len(r.stdout) != 10_000_001 {
		t.Errorf("10 MB became %d bytes", len(r.stdout))
	}

	db, err := sql.Open("mysql", "native:secret@tcp("+g.address("db")+")/shop?interpolateParams=false")
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	for i := range 20 {
		var got int
		if err := db.QueryRowContext(longContext(t), "select ? + 1", i).Scan(&got); err != nil || got != i+1 {
			t.Fatalf("Go's driver: %d, %v", got, err)
		}
	}
	if _, err := db.ExecContext(longContext(t), "insert into t values (100001, 'through the gateway')"); err != nil {
		t.Error(err)
	}
	if r := m.local(t, "select b from shop.t where a = 100001"); r.stdout != "through the gateway\n" {
		t.Errorf("stored: %v", r)
	}

	// If the server speaks another protocol, no byte of its greeting reaches the
	// client.
	other := serveConns(t, nil, func(c net.Conn) {
		_, _ = io.WriteString(c, "220 mail.example.com ESMTP\r\n")
		_, _ = io.Copy(io.Discard, c)
	})
	g.apply(a.startsTLS("other", adminv1.Starttls_STARTTLS_MYSQL, other), listener("other", protocolTCP, "other"))
	if got, err := exchange(t, g.address("other"), ""); got != "" || err == nil {
		t.Errorf("the client got %q, %v", got, err)
	}
	if r := g.probe("other"); r.GetReason() != adminv1.Reason_REASON_STARTTLS_REFUSED {
		t.Errorf("the probe of another protocol: %v", r)
	}
}

// A mysql8 is a test server that authenticates its users with caching_sha2_password like
// MySQL 8: with the password itself over TLS, or encrypted with the server's key in
// plaintext. It answers every command with OK.
type mysql8 struct {
	config *tls.Config     // nil: the server does not offer TLS
	key    *rsa.PrivateKey // encrypts the passwords of plaintext clients

	mu          sync.Mutex
	cached      bool // a user has logged in since the last restart
	full, fast  int  // the numbers of logins
	certificate string
	received    bytes.Buffer // bytes received in plaintext
}

const mysql8Scramble = "0123456789abcdefghij"

func packet(sequence byte, payload string) string {
	n := len(payload)
	return string([]byte{byte(n), byte(n >> 8), byte(n >> 16), sequence}) + payload
}

// read returns the payload of the next packet, or "" at the end.
func (m *mysql8) read(c net.Conn, sequence byte) string {
	var header [4]byte
	if _, err := io.ReadFull(c, header[:]); err != nil || header[3] != sequence {
		return ""
	}
	payload := make([]byte, int(header[0])|int(header[1])<<8|int(header[2])<<16)
	if _, err := io.ReadFull(c, payload); err != nil {
		return ""
	}
	if m.config == nil {
		m.mu.Lock()
		m.received.Write(payload)
		m.mu.Unlock()
	}
	return string(payload)
}

func (m *mysql8) serve(c net.Conn) {
	const ok, denied = "\x00\x00\x00\x02\x00\x00\x00", "\xff\x15\x04#28000Access denied"
	capabilities, next := "\xff\xff", byte(2)
	if m.config == nil {
		capabilities = "\xff\xf7"
	}
	_, _ = io.WriteString(c, packet(0, "\x0a8.4.0-test\x00\x01\x00\x00\x00"+mysql8Scramble[:8]+"\x00"+capabilities+"\xff\x02\x00\xff\xdf\x15"+strings.Repeat("\x00", 10)+mysql8Scramble[8:]+"\x00caching_sha2_password\x00"))
	response := m.read(c, 1)
	certificate := ""
	if m.config != nil {
		if len(response) != 32 {
			return
		}
		secure := tls.Server(c, m.config)
		c = secure
		response, next = m.read(c, 2), 3
		if len(secure.ConnectionState().PeerCertificates) == 0 {
			return
		}
		certificate = secure.ConnectionState().PeerCertificates[0].Subject.CommonName
	}
	if len(response) < 36 {
		return
	}
	m.mu.Lock()
	m.certificate = certificate
	fast := m.cached && strings.Contains(response, scrambleSHA2("secret", mysql8Scramble))
	if fast {
		m.fast++
	}
	m.mu.Unlock()
	if fast {
		_, _ = io.WriteString(c, packet(next, "\x01\x03")+packet(next+1, ok))
	} else {
		_, _ = io.WriteString(c, packet(next, "\x01\x04"))
		password, next := m.password(c, next+1)
		if password != "secret\x00" {
			_, _ = io.WriteString(c, packet(next, denied))
			return
		}
		m.mu.Lock()
		m.cached = true
		m.full++
		m.mu.Unlock()
		_, _ = io.WriteString(c, packet(next, ok))
	}
	for {
		request := m.read(c, 0)
		if request == "" || request[0] == 1 { // COM_QUIT
			return
		}
		_, _ = io.WriteString(c, packet(1, ok))
	}
}

// password reads the password itself, and returns the next sequence number.
func (m *mysql8) password(c net.Conn, sequence byte) (string, byte) {
	message := m.read(c, sequence)
	if m.config != nil {
		return message, sequence + 1
	}
	if message != "\x02" {
		return "", sequence + 1 // a plaintext server rejects an unencrypted password
	}
	der, err := x509.MarshalPKIXPublicKey(&m.key.PublicKey)
	if err != nil {
		return "", sequence + 1
	}
	_, _ = io.WriteString(c, packet(sequence+1, "\x01"+string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))))
	password, _ := rsa.DecryptOAEP(sha1.New(), nil, m.key, []byte(m.read(c, sequence+2)), nil)
	for i := range password {
		password[i] ^= mysql8Scramble[i%len(mysql8Scramble)]
	}
	return string(password), sequence + 3
}

// scrambleSHA2 returns a client's proof that it knows the password.
func scrambleSHA2(password, scramble string) string {
	first := sha256.Sum256([]byte(password))
	second := sha256.Sum256(first[:])
	third := sha256.Sum256(append(bytes.Clone(second[:]), scramble...))
	for i := range first {
		first[i] ^= third[i]
	}
	return string(first[:])
}

func TestCachingSHA2PasswordWorksAlsoAfterARestart(t *testing.T) {
	t.Parallel()
	a := newAuthority(t)
	server := &mysql8{config: a.serverConfig(t)}
	g := startGateway(t)
	g.apply(trustBundle("ca", a.ca), certificate("client", a.client), a.startsTLS("db", adminv1.Starttls_STARTTLS_MYSQL, serveConns(t, nil, server.serve)), listener("db", protocolTCP, "db"))
	login := map[string]func(password string) error{
		"Go's driver": func(password string) error {
			db, err := sql.Open("mysql", "bob:"+password+"@tcp("+g.address("db")+")/shop")
			if err != nil {
				t.Fatal(err)
			}
			defer db.Close()
			return db.PingContext(longContext(t))
		},
		"mariadb": func(password string) error {
			r := command(t, need(t, "mariadb"), append(plainMySQL(g.address("db"), "bob", password), "-e", "do 1")...)
			if r.code != 0 {
				return io.ErrUnexpectedEOF
			}
			return nil
		},
	}
	for name, login := range login {
		server.mu.Lock()
		server.cached, server.full, server.fast = false, 0, 0 // a restart empties the cache
		server.mu.Unlock()
		if err := login("wrong"); err == nil {
			t.Errorf("%s logs in with a wrong password", name)
		}
		for range 3 {
			if err := login("secret"); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
		server.mu.Lock()
		if server.full != 1 || server.fast != 2 || server.certificate != "e2e client" {
			t.Errorf("%s: %d logins with the whole password and %d from the cache, with the certificate of %q", name, server.full, server.fast, server.certificate)
		}
		server.mu.Unlock()
	}
	if strings.Contains(g.out.String(), "secret") {
		t.Error("the log has the password")
	}
}
