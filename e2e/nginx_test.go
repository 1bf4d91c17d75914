package e2e

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/drawbridge-gateway/drawbridge/certs/pki"
)

// An nginx is a running nginx of one process.
type nginx struct {
	*process
	dir   string
	ports []int
}

// An nginxConfig is what a test wants of an nginx.
type nginxConfig struct {
	ports  int                   // how many it listens on
	files  map[string][]byte     // written into its directory beforehand
	http   func(n *nginx) string // what is within http {}
	stream func(n *nginx) string // what is within stream {}; nil: no such block
}

// startNginx runs a real nginx and waits until it accepts on each of its ports.
// Without one the test is skipped, or fails where CI is set.
func startNginx(t testing.TB, config nginxConfig) *nginx {
	t.Helper()
	nginxPath := need(t, "nginx")
	module := ""
	if config.stream != nil {
		module = streamModule(t, nginxPath)
	}
	// A port that was free may be taken by the time nginx binds it.
	for range 5 {
		n := &nginx{dir: shortDir(t)}
		for range config.ports {
			n.ports = append(n.ports, freePort(t))
		}
		for name, data := range config.files {
			writeFile(t, filepath.Join(n.dir, name), data)
		}
		conf := writeFile(t, filepath.Join(n.dir, "nginx.conf"), []byte(n.render(config, module)))
		n.process = start(t, nginxPath, "-p", n.dir, "-c", conf, "-e", "stderr")
		up := false
		eventually(t, "nginx accepts connections", func() bool {
			up = n.up()
			return up || n.done()
		})
		if up {
			t.Cleanup(func() {
				if t.Failed() {
					t.Logf("nginx's log:\n%s", tail(n.out.String()))
				}
			})
			return n
		}
		if !n.out.contains("Address already in use") {
			t.Fatalf("nginx ended: %v\n%s", n.err, tail(n.out.String()))
		}
	}
	t.Fatal("nginx found its ports taken, five times")
	return nil
}

func (n *nginx) render(config nginxConfig, module string) string {
	var b strings.Builder
	if module != "" {
		fmt.Fprintf(&b, "load_module %s;\n", module)
	}
	// One process: what is killed at the end of a test is all of it.
	fmt.Fprintf(&b, "daemon off;\nmaster_process off;\npid %s/pid;\nerror_log stderr info;\nevents {}\n", n.dir)
	if config.http != nil {
		b.WriteString("http {\n  access_log off;\n  ssl_protocols TLSv1.2 TLSv1.3;\n  keepalive_timeout 60s;\n")
		for _, kind := range []string{"client_body", "proxy", "fastcgi", "uwsgi", "scgi"} {
			fmt.Fprintf(&b, "  %s_temp_path %s/%s;\n", kind, n.dir, kind)
		}
		fmt.Fprintf(&b, "%s\n}\n", config.http(n))
	}
	if config.stream != nil {
		fmt.Fprintf(&b, "stream {\n  access_log off;\n  ssl_protocols TLSv1.2 TLSv1.3;\n%s\n}\n", config.stream(n))
	}
	return b.String()
}

// streamModule returns the path of nginx's stream module; "" if it is built in.
func streamModule(t testing.TB, nginxPath string) string {
	t.Helper()
	out, err := exec.Command(nginxPath, "-V").CombinedOutput()
	if err != nil {
		t.Fatalf("nginx -V: %v\n%s", err, out)
	}
	var modules string
	for _, option := range strings.Fields(string(out)) {
		if option == "--with-stream" {
			return ""
		}
		if dir, ok := strings.CutPrefix(option, "--modules-path="); ok {
			modules = dir
		}
	}
	path := filepath.Join(modules, "ngx_stream_module.so")
	if _, err := os.Stat(path); err != nil {
		missing(t, "nginx's stream module is not installed")
	}
	return path
}

func (n *nginx) up() bool {
	for i := range n.ports {
		if !accepts(n.address(i)) {
			return false
		}
	}
	return true
}

// address is where the nginx listens.
func (n *nginx) address(i int) string {
	return net.JoinHostPort("127.0.0.1", strconv.Itoa(n.ports[i]))
}

// file is the path of one of its files.
func (n *nginx) file(name string) string { return filepath.Join(n.dir, name) }

// mutualTLS is the part of a server block that presents a certificate and
// demands one of the same authority.
func (n *nginx) mutualTLS() string {
	return fmt.Sprintf(`
    ssl_certificate %s;
    ssl_certificate_key %s;
    ssl_client_certificate %s;
    ssl_verify_client on;`, n.file("server.pem"), n.file("server.key"), n.file("ca.pem"))
}

// nginxFiles are what mutualTLS names.
func nginxFiles(ca *pki.CA, server *pki.Issued) map[string][]byte {
	return map[string][]byte{"server.pem": server.ChainPEM, "server.key": server.KeyPEM, "ca.pem": ca.RootPEM()}
}
