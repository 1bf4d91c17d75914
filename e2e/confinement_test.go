// The process can use only the files that its flags name or imply, and so can the process
// of an upgrade. Everything that a gateway does at run time still works.

package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
	"google.golang.org/protobuf/proto"
)

// confined skips the test if the kernel cannot confine the gateway.
func confined(t *testing.T, g *gateway) {
	t.Helper()
	c := g.getStatus().GetConfinement()
	if !c.GetLandlock() {
		t.Skipf("this kernel cannot enforce Landlock: %v", c.GetMissing())
	}
	if !c.GetNoNewPrivileges() {
		t.Errorf("no_new_privs is not set: %v", c)
	}
}

func TestAConfinedGatewayDoesItsWork(t *testing.T) {
	t.Parallel()
	a, dir := newAuthority(t), shortDir(t)
	at := func(parts ...string) string { return filepath.Join(append([]string{dir}, parts...)...) }
	for _, name := range []string{"root", "logs", "conf"} {
		if err := os.Mkdir(at(name), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	// As Kubernetes mounts a secret: the directory of the file is replaced with each version.
	mounted := func(version string, chain, key []byte) {
		t.Helper()
		if err := os.MkdirAll(at("root", version), 0o700); err != nil {
			t.Fatal(err)
		}
		writeFile(t, at("root", version, "tls.crt"), chain)
		writeFile(t, at("root", version, "tls.key"), key)
		_ = os.Remove(at("root", "new"))
		for _, err := range []error{os.Symlink(version, at("root", "new")), os.Rename(at("root", "new"), at("root", "data"))} {
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	policy := writeFile(t, at("conf", "policy.yaml"), []byte("subjects:\n  uid:0: admin\n"))
	g := upgradable(t, "--file-root", at("root"), "--access-log", at("logs", "access.log"), "--audit-log", at("logs", "audit.log"), "--admin-policy", policy)
	confined(t, g)
	web := serveHTTP(t, respondsWith("web"))
	for n := range 3 {
		// The process of an upgrade needs no more than the first one.
		name := fmt.Sprint("n", n)
		mounted(name, a.server.ChainPEM, a.server.KeyPEM)
		if err := os.Mkdir(at(name), 0o700); err != nil { // after the start
			t.Fatal(err)
		}
		onUnix, secure := listener("unix-"+name, protocolHTTP, "web"), listener("secure-"+name, protocolHTTP, "web")
		onUnix.Address = "unix:" + at(name, "web.sock")
		secure.Tls = &adminv1.ServerTls{Certificates: []string{name}}
		g.apply(plainUpstream("web", web), onUnix, secure, &adminv1.Certificate{Name: name, Source: &adminv1.Certificate_Files{
			Files: &adminv1.CertificateFiles{CertificatePath: at("root", "data", "tls.crt"), PrivateKeyPath: at("root", "data", "tls.key")},
		}})
		for _, dial := range dialers(map[string]string{at(name, "web.sock"): "unix"}) {
			conn, err := dial()
			if err == nil {
				err = askOnce(conn)
			}
			if err != nil {
				t.Error(err)
			}
		}
		for _, log := range []string{"access.log", "audit.log"} {
			if err := os.Rename(at("logs", log), at("logs", log+"."+name)); err != nil {
				t.Fatal(err)
			}
		}
		if err := syscall.Kill(g.pid(), syscall.SIGUSR1); err != nil {
			t.Fatal(err)
		}
		eventually(t, "the logs are open again", func() bool {
			_, err := os.Stat(at("logs", "access.log"))
			_, auditErr := os.Stat(at("logs", "audit.log"))
			return err == nil && auditErr == nil
		})
		// An editor replaces the file rather than its content.
		writeFile(t, policy+".new", []byte("subjects:\n  uid:0: admin\n# "+name+"\n"))
		if err := os.Rename(policy+".new", policy); err != nil {
			t.Fatal(err)
		}
		reloads := strings.Count(g.out.String(), "configuration and files reloaded")
		if err := syscall.Kill(g.pid(), syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
		eventually(t, "the reload succeeds", func() bool {
			return strings.Count(g.out.String(), "configuration and files reloaded") > reloads
		})
		g.remove(ref(adminv1.Kind_KIND_LISTENER, onUnix.Name))
		if _, err := os.Lstat(at(name, "web.sock")); err == nil {
			t.Error("the socket of a removed listener is still there")
		}
		g.upgrade()
		if c := g.getStatus().GetConfinement(); !c.GetLandlock() || !c.GetNoNewPrivileges() {
			t.Errorf("after an upgrade: %v", c)
		}
	}
	if s := g.getStatus(); len(s.GetProblems()) > 0 || len(s.GetWarnings()) > 0 {
		t.Errorf("%v, %v", s.GetProblems(), s.GetWarnings())
	}
	if strings.Contains(g.out.String(), "permission denied") {
		t.Error("something was denied")
	}
}

func TestAProgramOfAConfinedGatewayReadsNoOtherFile(t *testing.T) {
	t.Parallel()
	outside := writeFile(t, filepath.Join(t.TempDir(), "outside"), []byte("the content of another file"))
	// A program in place of the gateway's has the same restrictions. It writes to the log.
	reader := script(t, "cat "+outside+" >&2; exit 3")
	for _, landlock := range []bool{true, false} {
		g := upgradable(t, fmt.Sprintf("--landlock=%t", landlock), "--program-root", filepath.Dir(reader), "--program-root", "/usr")
		if landlock {
			confined(t, g)
		} else if c := g.getStatus().GetConfinement(); c.GetLandlock() || !strings.Contains(strings.Join(c.GetMissing(), ";"), "--landlock=false") {
			t.Errorf("%v", c)
		}
		if r := g.tryUpgrade("--binary", reader); r.code != 1 || !strings.Contains(r.stderr, "exit status 3") {
			t.Errorf("%v", r)
		}
		eventually(t, "the program has tried", func() bool {
			return g.out.contains("Permission denied") || g.out.contains("the content of another file")
		})
		if got := !g.out.contains("the content of another file"); got != landlock {
			t.Errorf("with Landlock %v, the program was denied: %v", landlock, got)
		}
	}
}

func TestAProgramElsewhereIsRefusedWithTheRemedy(t *testing.T) {
	t.Parallel()
	g := upgradable(t)
	confined(t, g)
	elsewhere := script(t, "exit 0")
	if r := g.tryUpgrade("--binary", elsewhere); r.code != 1 || !strings.Contains(r.stderr, "--program-root "+filepath.Dir(elsewhere)) {
		t.Errorf("%v", r)
	}
	if err := syscall.Kill(g.pid(), syscall.SIGUSR2); err != nil {
		t.Fatal(err)
	}
	before := g.pid()
	eventually(t, "a signal upgrades to the program of the start", func() bool { return g.pid() != before })
}

func TestStatusSaysWhatIsNotConfined(t *testing.T) {
	t.Parallel()
	g := startGateway(t, "--landlock=false", "--no-new-privileges=false")
	status := command(t, program(t), "status", "--admin", "unix:"+g.socket)
	for _, want := range []string{"NOT CONFINED Landlock: off (--landlock=false)", "NOT CONFINED no_new_privs: off (--no-new-privileges=false)"} {
		if !strings.Contains(status.stdout, want) {
			t.Errorf("want %q: %v", want, status)
		}
	}
	eventually(t, "the log warns of each missing restriction", func() bool {
		return strings.Count(g.out.String(), "not every restriction is in force") == 2
	})
	if c := g.getStatus().GetConfinement(); proto.Equal(c, &adminv1.Confinement{}) || c.GetNoNewPrivileges() {
		t.Errorf("%v", c)
	}
}
