package backend

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"time"

	"github.com/drawbridge-gateway/drawbridge/bench/child"
	"github.com/drawbridge-gateway/drawbridge/bench/keys"
)

// PostgresUser is the only user. The proxies' certificate names it.
const PostgresUser = "client"

// postgresScale is pgbench's scale, the number of its branches. With this many,
// few connections wait for each other's transactions.
const postgresScale = 10

// startTimeout bounds the start of PostgreSQL, and the filling of its tables.
const startTimeout = 2 * time.Minute

// StartPostgres starts a PostgreSQL that requires TLS and a client certificate over
// TCP, and creates pgbench's tables. It runs in its own process, which writes to a
// temporary directory without waiting for the disk.
func StartPostgres(ctx context.Context, k *keys.Keys) (*Backend, error) {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	dir, err := os.MkdirTemp("", "bench-pg-")
	if err != nil {
		return nil, err
	}
	p := &postgres{dir: dir}
	if err := p.start(ctx, k); err != nil {
		_ = p.stop()
		return nil, fmt.Errorf("start PostgreSQL: %w", err)
	}
	return &Backend{program: p.address, closeServer: p.stop}, nil
}

// A postgres owns its process and its directory.
type postgres struct {
	dir     string
	bin     string   // directory of its programs
	as      []string // the prefix of a command to run it as a user other than root
	address string
	process *child.Process
}

// PostgresMissing returns why this machine cannot run PostgreSQL, or "".
func PostgresMissing() string {
	if _, err := postgresBin(); err != nil {
		return err.Error()
	}
	return ""
}

// postgresBin returns the directory of the newest PostgreSQL, as Debian installs it.
func postgresBin() (string, error) {
	found, err := filepath.Glob("/usr/lib/postgresql/*/bin/postgres")
	if err != nil || len(found) == 0 {
		return "", fmt.Errorf("PostgreSQL is not installed (no /usr/lib/postgresql/*/bin/postgres)")
	}
	return filepath.Dir(found[len(found)-1]), nil
}

func (p *postgres) start(ctx context.Context, k *keys.Keys) (err error) {
	if p.bin, err = postgresBin(); err != nil {
		return err
	}
	if p.address, err = child.FreeAddress(); err != nil {
		return err
	}
	host, port, err := net.SplitHostPort(p.address)
	if err != nil {
		return err
	}
	if err := p.copyKeys(k); err != nil {
		return err
	}
	data := filepath.Join(p.dir, "data")
	if err := p.run(ctx, filepath.Join(p.bin, "initdb"), "-D", data, "-U", PostgresUser, "-A", "trust", "--no-sync", "--locale=C"); err != nil {
		return err
	}
	access := "local all all trust\nhostssl all all 127.0.0.1/32 cert\n"
	if err := os.WriteFile(filepath.Join(data, "pg_hba.conf"), []byte(access), 0o600); err != nil {
		return err
	}
	args := append(p.as[1:], filepath.Join(p.bin, "postgres"), "-D", data)
	for _, setting := range []string{
		"port=" + port, "listen_addresses=" + host, "unix_socket_directories=" + p.dir, "fsync=off", "synchronous_commit=off", "autovacuum=off",
		"ssl=on", "ssl_cert_file=" + p.file("server.pem"), "ssl_key_file=" + p.file("server.key"), "ssl_ca_file=" + p.file("ca.pem"),
	} {
		args = append(args, "-c", setting)
	}
	if p.process, err = child.Start(p.as[0], args, p.file("log")); err != nil {
		return err
	}
	local := []string{"-h", p.dir, "-p", port, "-U", PostgresUser, "postgres"}
	err = p.process.Await(ctx, 50*time.Millisecond, func(ctx context.Context) error {
		return p.run(ctx, "psql", append([]string{"-Xqc", "select 1"}, local...)...)
	})
	if err != nil {
		return err
	}
	return p.run(ctx, "pgbench", append([]string{"-i", "-q", "-s", strconv.Itoa(postgresScale), "--unlogged-tables"}, local...)...)
}

func (p *postgres) file(name string) string { return filepath.Join(p.dir, name) }

// copyKeys copies the backend's key files for the server, which refuses to run as root.
func (p *postgres) copyKeys(k *keys.Keys) error {
	for name, from := range map[string]string{"server.pem": k.Backend.Chain, "server.key": k.Backend.Key, "ca.pem": k.CA} {
		text, err := os.ReadFile(from)
		if err != nil {
			return err
		}
		if err := os.WriteFile(p.file(name), text, 0o600); err != nil {
			return err
		}
	}
	p.as = []string{"/usr/bin/env"}
	if os.Geteuid() != 0 {
		return nil
	}
	u, err := user.Lookup("postgres")
	if err != nil {
		return err
	}
	uid, _ := strconv.Atoi(u.Uid)
	gid, _ := strconv.Atoi(u.Gid)
	p.as = []string{"/usr/bin/setpriv", "--reuid=" + u.Uid, "--regid=" + u.Gid, "--clear-groups"}
	for _, name := range []string{"", "server.pem", "server.key", "ca.pem"} {
		if err := os.Chown(p.file(name), uid, gid); err != nil {
			return err
		}
	}
	return nil
}

func (p *postgres) run(ctx context.Context, program string, args ...string) error {
	args = append(append(p.as[1:len(p.as):len(p.as)], program), args...)
	out, err := exec.CommandContext(ctx, p.as[0], args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s: %w: %s", program, err, out)
	}
	return nil
}

func (p *postgres) stop() error {
	if p.process != nil {
		_ = p.process.Stop(10 * time.Second) // fails if the process had to be killed, which does not matter here
	}
	return os.RemoveAll(p.dir)
}
