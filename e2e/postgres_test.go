// A PostgreSQL that requires TLS and a client certificate serves clients that
// have neither. Their results are the same as without the gateway.

package e2e

import (
	"crypto/sha256"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

// A postgres is a running PostgreSQL. Over TCP its access rules apply; over its
// unix socket the user "bridge" needs no password.
type postgres struct {
	*daemon
	dir, psql string
}

// Access rules for clients over TCP.
const (
	mutualTLSOnly = "hostssl all all 127.0.0.1/32 cert\n" // the certificate names the user
	plaintextToo  = mutualTLSOnly + "hostnossl all all 127.0.0.1/32 trust\n"
)

func startPostgres(t testing.TB, a *authority, access string) *postgres {
	t.Helper()
	bin := filepath.Dir(needFile(t, "/usr/lib/postgresql/*/bin/postgres"))
	p := &postgres{dir: shortDir(t), psql: need(t, "psql")}
	data := filepath.Join(p.dir, "data")
	as := unprivileged(t, "postgres", p.dir)
	run(t, append(as, filepath.Join(bin, "initdb"), "-D", data, "-U", "bridge", "-A", "trust", "--no-sync", "--locale=C", "-E", "UTF8")...)
	if err := os.Remove(filepath.Join(data, "postgresql.conf")); err != nil {
		t.Fatal(err)
	}
	a.writeServer(t, p.dir)
	writeFile(t, filepath.Join(data, "postgresql.conf"), []byte("ssl = on\n"))
	writeFile(t, filepath.Join(data, "pg_hba.conf"), []byte("local all all trust\n"+access))
	unprivileged(t, "postgres", p.dir)
	p.daemon = startDaemon(t, 1, func(addresses []string) []string {
		host, port, _ := net.SplitHostPort(addresses[0])
		args := append(as, filepath.Join(bin, "postgres"), "-D", data)
		for _, setting := range []string{
			"port=" + port, "listen_addresses=" + host, "unix_socket_directories=" + p.dir, "fsync=off", // ssl is in the file, because refuseTLS changes it
			"ssl_cert_file=" + filepath.Join(p.dir, "server.pem"), "ssl_key_file=" + filepath.Join(p.dir, "server.key"), "ssl_ca_file=" + filepath.Join(p.dir, "ca.pem"),
		} {
			args = append(args, "-c", setting)
		}
		return args
	})
	return p
}

// local returns the connection string to reach the server without the gateway.
func (p *postgres) local() string {
	_, port, _ := net.SplitHostPort(p.addresses[0])
	return fmt.Sprintf("host=%s port=%s user=bridge dbname=postgres", p.dir, port)
}

// plain returns the connection string to reach an address in plaintext.
func plain(address string) string {
	host, port, _ := net.SplitHostPort(address)
	return fmt.Sprintf("host=%s port=%s user=bridge dbname=postgres sslmode=disable gssencmode=disable", host, port)
}

func (p *postgres) query(t testing.TB, at, sql string) result {
	return command(t, p.psql, "-XAtqc", sql, at)
}

// postgresAuthority returns an authority whose client certificate is for the
// user "bridge".
func postgresAuthority(t testing.TB) *authority {
	a := newAuthority(t)
	a.client = clientCert(t, a.ca, "bridge")
	return a
}

// startsTLS returns an upstream that starts TLS in a protocol.
func (a *authority) startsTLS(name string, protocol adminv1.Starttls, addresses ...string) *adminv1.Upstream {
	settings := a.settings()
	settings.Starttls = protocol
	return upstream(name, settings, addresses...)
}

func TestPostgresBehindMutualTLS(t *testing.T) {
	t.Parallel()
	a := postgresAuthority(t)
	p := startPostgres(t, a, mutualTLSOnly)
	g := startGateway(t)
	u := a.startsTLS("pg", adminv1.Starttls_STARTTLS_POSTGRES, p.addresses[0])
	u.HealthCheck = &adminv1.HealthCheck{Kind: &adminv1.HealthCheck_Tls{Tls: &adminv1.TlsCheck{}}, Interval: durationpb.New(200 * time.Millisecond), Timeout: durationpb.New(testTimeout)}
	anonymous := a.startsTLS("anonymous", adminv1.Starttls_STARTTLS_POSTGRES, p.addresses[0])
	anonymous.GetTls().Certificate = ""
	g.apply(trustBundle("ca", a.ca), certificate("client", a.client), u, anonymous, listener("pg", protocolTCP, "pg"), listener("anonymous", protocolTCP, "anonymous"))
	through := plain(g.address("pg"))

	if r := p.query(t, plain(p.addresses[0]), "select 1"); r.code == 0 {
		t.Fatalf("the server accepts plaintext: %v", r)
	}
	if r := p.query(t, through, "select ssl, client_dn from pg_stat_ssl where pid = pg_backend_pid()"); r.stdout != "t|/CN=bridge\n" {
		t.Errorf("the user that the server sees: %v", r)
	}
	if r := p.query(t, plain(g.address("anonymous")), "select 1"); r.code == 0 || !strings.Contains(r.stderr, "connection requires a valid client certificate") {
		t.Errorf("without a certificate: %v", r)
	}
	if r := g.probe("pg"); r.GetOutcome() != adminv1.ProbeOutcome_PROBE_OUTCOME_OK || !r.GetClientCertificateSent() || !strings.Contains(r.GetExplanation(), "agreed in PostgreSQL to start TLS, and completed the handshake") {
		t.Errorf("the probe: %v", r)
	}
	eventually(t, "the health check passes", func() bool {
		return g.upstream("pg").GetEndpoints()[0].GetHealth() == adminv1.EndpointHealth_ENDPOINT_HEALTH_UP
	})

	const rows = "select g, repeat(md5(g::text), 31), null from generate_series(1, 100000) g"
	sum := func(at string) string {
		cmd := exec.CommandContext(longContext(t), p.psql, "-Xqc", "copy ("+rows+") to stdout", at)
		dieWithParent(cmd)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		h := sha256.New()
		n, err := io.Copy(h, out)
		if waited := cmd.Wait(); err != nil || waited != nil {
			t.Fatal(err, waited)
		}
		return fmt.Sprintf("%d bytes, %x", n, h.Sum(nil))
	}
	if direct, bridged := sum(p.local()), sum(through); direct != bridged || !strings.HasPrefix(direct, "100") && !strings.HasPrefix(direct, "99") {
		t.Errorf("COPY to stdout: directly %s, through the gateway %s", direct, bridged)
	}
	if r := command(t, "sh", "-c", fmt.Sprintf("%q -Xqc 'create table t(a int, b text, c text); copy t from stdin' '%s' < /dev/null && %q -Xqc 'copy (%s) to stdout' '%s' | %q -Xqc 'copy t from stdin' '%s'",
		p.psql, through, p.psql, rows, p.local(), p.psql, through)); r.code != 0 {
		t.Errorf("COPY from stdin: %v", r)
	}
	const digest = "select count(*), sum(hashtext(a::text || b || coalesce(c, '?'))) from "
	if stored, want := p.query(t, p.local(), digest+"t"), p.query(t, p.local(), digest+"("+rows+") as s(a, b, c)"); stored != want || want.code != 0 {
		t.Errorf("stored %v, want %v", stored, want)
	}

	pgbench(t, p, through)

	// Cancel a statement: CancelRequest is sent on its own connection.
	asleep := start(t, p.psql, "-Xc", "select pg_sleep(600)", through)
	eventually(t, "the statement runs", func() bool {
		return p.query(t, p.local(), "select count(*) from pg_stat_activity where state = 'active' and query = 'select pg_sleep(600)'").stdout == "1\n"
	})
	asleep.signal(os.Interrupt)
	if code := asleep.wait(); code == 0 || !strings.Contains(asleep.out.String(), "canceling statement due to user request") {
		t.Errorf("canceled: exit code %d, %s", code, asleep.out.String())
	}

	p.refuseTLS(t)
	eventually(t, "the health check finds that the server refuses TLS", func() bool {
		return g.upstream("pg").GetEndpoints()[0].GetCheck().GetReason() == adminv1.Reason_REASON_STARTTLS_REFUSED
	})
	if r := p.query(t, plain(g.address("anonymous")), "select 1"); r.code == 0 || strings.Contains(r.stderr, "FATAL") {
		t.Errorf("without TLS at the server: %v", r)
	}
	if failures := g.upstream("anonymous").GetEndpoints()[0].GetFailures(); len(failures) == 0 || failures[len(failures)-1].GetReason() != adminv1.Reason_REASON_STARTTLS_REFUSED {
		t.Errorf("the failures are %v", failures)
	}
	r := g.cli("probe", "pg")
	if r.code == 0 || !strings.Contains(r.stdout, "STARTTLS_REFUSED") || !strings.Contains(r.stdout, `answered SSLRequest with "N"`) || !strings.Contains(r.stdout, "enable TLS at the server") {
		t.Errorf("the probe: %v", r)
	}
}

// transactions returns how many transactions pgbench makes over long connections.
// DRAWBRIDGE_PGBENCH sets it.
func transactions(t testing.TB) int {
	text := os.Getenv("DRAWBRIDGE_PGBENCH")
	if text == "" {
		return 800
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		t.Fatalf("DRAWBRIDGE_PGBENCH: %v", err)
	}
	return n
}

// pgbench runs transactions over long and over short connections. Each transaction of a
// long connection changes three balances by the same amount and records it. The sums
// agree if no transaction was lost or made twice.
func pgbench(t testing.TB, p *postgres, at string) {
	t.Helper()
	program, clients := need(t, "pgbench"), 8
	each := max(1, transactions(t)/clients)
	scale := "1"
	if each > 1000 {
		scale = strconv.Itoa(clients) // one branch for each client, so that few transactions wait for others
	}
	run(t, program, "-i", "-q", "-I", "dtGp", "-s", scale, at)
	for _, args := range [][]string{{"-c", strconv.Itoa(clients), "-t", strconv.Itoa(each)}, {"-c", "4", "-t", "25", "-C", "-S"}} {
		cmd := exec.CommandContext(t.Context(), program, append(append([]string{"-n"}, args...), at)...)
		dieWithParent(cmd)
		begin := time.Now()
		out, err := cmd.CombinedOutput()
		if err != nil || !strings.Contains(string(out), "number of failed transactions: 0 ") {
			t.Errorf("pgbench %v: %v, %s", args, err, out)
		}
		t.Logf("pgbench %v took %v", args, time.Since(begin))
	}
	const balances = `select (select count(*) from pgbench_history), (select sum(delta) from pgbench_history) = all(array[
		(select sum(abalance) from pgbench_accounts), (select sum(tbalance) from pgbench_tellers), (select sum(bbalance) from pgbench_branches)])`
	if r := p.query(t, p.local(), balances); r.stdout != fmt.Sprintf("%d|t\n", clients*each) {
		t.Errorf("the balances after %d transactions: %v", clients*each, r)
	}
}

// refuseTLS makes the server answer N to SSLRequest.
func (p *postgres) refuseTLS(t testing.TB) {
	t.Helper()
	for _, sql := range []string{"alter system set ssl = off", "select pg_reload_conf()"} {
		if r := p.query(t, p.local(), sql); r.code != 0 {
			t.Fatal(r)
		}
	}
}
