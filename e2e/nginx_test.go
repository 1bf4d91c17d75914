package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/drawbridge-gateway/drawbridge/certs/pki"
)

// An nginx is a running nginx with a single process.
type nginx struct {
	*process
	dir       string
	addresses []string
}

// An nginxConfig configures an nginx.
type nginxConfig struct {
	ports  int                   // the number of ports to listen on
	files  map[string][]byte     // files for its directory
	http   func(n *nginx) string // content of http {}
	stream func(n *nginx) string // content of stream {}; nil: no such block
}

// startNginx runs a real nginx and waits until it accepts on each of its ports.
// If nginx is missing, the test is skipped, or fails with CI set.
func startNginx(t testing.TB, config nginxConfig) *nginx {
	t.Helper()
	nginxPath := need(t, "nginx")
	module := ""
	if config.stream != nil {
		module = streamModule(t, nginxPath)
	}
	// Another program may take a free port before nginx binds it.
	for range 5 {
		n := &nginx{dir: shortDir(t), addresses: freeAddresses(t, config.ports)}
		for name, data := range config.files {
			writeFile(t, filepath.Join(n.dir, name), data)
		}
		conf := writeFile(t, filepath.Join(n.dir, "nginx.conf"), []byte(n.render(config, module)))
		n.process = start(t, nginxPath, "-p", n.dir, "-c", conf, "-e", "stderr")
		eventually(t, "nginx accepts connections", func() bool { return n.up() || n.done() || n.collided() })
		if !n.done() && !n.collided() {
			t.Cleanup(func() {
				if t.Failed() {
					t.Logf("nginx's log:\n%s", tail(n.out.String()))
				}
			})
			return n
		}
		if !n.collided() {
			t.Fatalf("nginx ended: %v\n%s", n.err, tail(n.out.String()))
		}
		n.kill()
	}
	t.Fatal("nginx found its ports in use, five times")
	return nil
}

func (n *nginx) render(config nginxConfig, module string) string {
	var b strings.Builder
	if module != "" {
		fmt.Fprintf(&b, "load_module %s;\n", module)
	}
	// A single process, so that killing it ends all of nginx.
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

// streamModule returns the path of nginx's stream module, or "" if it is built in.
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

// up reports whether nginx has bound its sockets, according to its log.
func (n *nginx) up() bool { return n.out.contains("event method") }

// collided reports whether another program uses one of the ports. nginx retries
// for a while before it exits.
func (n *nginx) collided() bool { return n.out.contains("Address already in use") }

// address returns the address of the i-th port.
func (n *nginx) address(i int) string { return n.addresses[i] }

// file returns the path of one of nginx's files.
func (n *nginx) file(name string) string { return filepath.Join(n.dir, name) }

// mutualTLS returns the directives to present a certificate and require a
// client certificate of the same CA.
func (n *nginx) mutualTLS() string {
	return fmt.Sprintf(`
    ssl_certificate %s;
    ssl_certificate_key %s;
    ssl_client_certificate %s;
    ssl_verify_client on;`, n.file("server.pem"), n.file("server.key"), n.file("ca.pem"))
}

// nginxFiles returns the files that mutualTLS refers to.
func nginxFiles(ca *pki.CA, server *pki.Issued) map[string][]byte {
	return map[string][]byte{"server.pem": server.ChainPEM, "server.key": server.KeyPEM, "ca.pem": ca.RootPEM()}
}
