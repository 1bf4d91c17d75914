package e2e

import (
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"testing"
)

// needFile returns the first file that matches a pattern. Without one it skips
// the test, or fails it if CI is set.
func needFile(t testing.TB, pattern string) string {
	t.Helper()
	found, err := filepath.Glob(pattern)
	if err != nil {
		t.Fatal(err)
	}
	if len(found) == 0 {
		missing(t, pattern+" is not installed")
	}
	return found[0]
}

// unprivileged returns the arguments to run a program that refuses to run as root. If
// the tests run as root, the program runs as the named user, and dir belongs to that
// user. Otherwise it runs as the user of the tests.
func unprivileged(t testing.TB, name, dir string) []string {
	t.Helper()
	if os.Geteuid() != 0 {
		return []string{"env"}
	}
	u, err := user.Lookup(name)
	if err != nil {
		missing(t, "there is no user "+name)
	}
	uid, _ := strconv.Atoi(u.Uid)
	gid, _ := strconv.Atoi(u.Gid)
	err = filepath.WalkDir(dir, func(path string, _ os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return os.Chown(path, uid, gid)
	})
	if err != nil {
		t.Fatal(err)
	}
	return []string{need(t, "setpriv"), "--reuid=" + u.Uid, "--regid=" + u.Gid, "--clear-groups", "--pdeathsig", "KILL"}
}

// writeServer writes the certificate and key of a server, and the CA of its clients, as
// server.pem, server.key and ca.pem into dir.
func (a *authority) writeServer(t testing.TB, dir string) {
	t.Helper()
	for name, content := range map[string][]byte{"server.pem": a.server.ChainPEM, "server.key": a.server.KeyPEM, "ca.pem": a.ca.RootPEM()} {
		writeFile(t, filepath.Join(dir, name), content)
	}
}

// run runs a program, which must succeed, and returns its output.
func run(t testing.TB, args ...string) string {
	t.Helper()
	r := command(t, args[0], args[1:]...)
	if r.code != 0 {
		t.Fatalf("%v: %v", args, r)
	}
	return r.stdout
}

// A daemon is a real server that listens on ports of the test's choice.
type daemon struct {
	*process
	addresses []string
}

// startDaemon starts a server that listens on n free ports, and waits until it
// accepts connections on each. command writes its configuration and returns
// its arguments. Another program may take a port before the server binds it,
// so startDaemon tries again if the server ends.
func startDaemon(t testing.TB, n int, command func(addresses []string) []string) *daemon {
	t.Helper()
	for range 5 {
		addresses := freeAddresses(t, n)
		args := command(addresses)
		d := &daemon{start(t, args[0], args[1:]...), addresses}
		eventually(t, filepath.Base(args[0])+" accepts connections", func() bool {
			if d.done() {
				return true
			}
			for _, a := range addresses {
				if refuses(a) {
					return false
				}
			}
			return true
		})
		if !d.done() {
			t.Cleanup(func() {
				if t.Failed() {
					t.Logf("the log of %v:\n%s", args, tail(d.out.String()))
				}
			})
			return d
		}
		t.Logf("%v ended: %v\n%s", args, d.err, tail(d.out.String()))
	}
	t.Fatal("the server ended, five times")
	return nil
}
