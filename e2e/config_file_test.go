// serve --config applies a file as the whole desired state, at the start and on
// SIGHUP, and removes everything else. A faulty file has no effect, and the log
// describes the fault.

package e2e

import (
	"fmt"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

func TestServeConfigFile(t *testing.T) {
	t.Parallel()
	a := newAuthority(t)
	backend := serveHTTPS(t, a.serverConfig(t), respondsWith("backend"))
	dir := t.TempDir()
	for name, data := range nginxFiles(a.ca, a.client) {
		writeFile(t, filepath.Join(dir, name), data)
	}
	// Paths are relative to the file, not to the working directory.
	file := filepath.Join(dir, "bridge.yaml")
	write := func(documents ...string) {
		base := fmt.Sprintf(`
kind: TrustBundle
name: corp
file: ca.pem
---
kind: Certificate
name: client
files: {certificatePath: server.pem, privateKeyPath: server.key}
---
kind: Upstream
name: backend
endpoints: [{address: "%s"}]
tls: {certificate: client, trustBundles: [corp], serverName: %s}
---
kind: Listener
name: web
address: 127.0.0.1:0
protocol: PROTOCOL_HTTP
upstream: backend
`, backend, serverName)
		writeFile(t, file, []byte(strings.Join(append([]string{base}, documents...), "\n---\n")))
	}
	const route = `kind: Route
name: fixed
listeners: [web]
match: {path: {prefix: /fixed/}}
respond: {body: %s}`

	write(fmt.Sprintf(route, "first"))
	g := startGateway(t, "--config", file)
	web := "http://" + g.address("web")
	expect := func(what, path string, wantCode int, want string) {
		t.Helper()
		if code, body := get(t, web+path); code != wantCode || body != want {
			t.Errorf("%s: %s is %d %q, want %d %q", what, path, code, body, wantCode, want)
		}
	}
	expect("at the start", "/", 200, "backend")
	expect("at the start", "/fixed/", 200, "first")

	// Resources from other sources are removed when the file is applied again.
	g.apply(listener("extra", protocolHTTP, "backend"))
	write(fmt.Sprintf(route, "second"))
	g.signal(syscall.SIGHUP)
	eventually(t, "the changed file is live", func() bool {
		_, body := get(t, web+"/fixed/")
		return body == "second"
	})
	eventually(t, "the resource that the file does not name is gone", func() bool { return g.listener("extra") == nil })
	expect("after SIGHUP", "/", 200, "backend")

	// Each faulty file is rejected with its fault, and has no effect.
	for what, c := range map[string]struct{ document, tells string }{
		"an unknown field":     {"kind: Listener\nname: more\naddress: 127.0.0.1:0\nprotocol: PROTOCOL_HTTP\nupstraem: backend", "upstraem"},
		"a dangling reference": {"kind: Listener\nname: more\naddress: 127.0.0.1:0\nprotocol: PROTOCOL_HTTP\nupstream: nowhere", "nowhere"},
		"no YAML":              {"kind: [Listener", "yaml"},
		"an unknown kind":      {"kind: Lisener\nname: more", "Lisener"},
	} {
		revision := g.getStatus().GetRevision()
		write(fmt.Sprintf(route, "wrong"), c.document)
		said := len(g.out.String())
		g.signal(syscall.SIGHUP)
		eventually(t, what+" is reported in the log", func() bool { return strings.Contains(g.out.String()[said:], c.tells) })
		expect(what, "/fixed/", 200, "second")
		if now := g.getStatus().GetRevision(); now != revision {
			t.Errorf("%s: the revision went from %d to %d", what, revision, now)
		}
		// A gateway does not start with a faulty file either.
		other := filepath.Join(shortDir(t), "data")
		r := command(t, program(t), "serve", "--data-dir", other, "--config", file)
		if r.code == 0 || !strings.Contains(r.stdout+r.stderr, c.tells) || !strings.Contains(r.stdout+r.stderr, "bridge.yaml") {
			t.Errorf("start with %s: %s", what, r)
		}
	}
	write(fmt.Sprintf(route, "third"))
	g.signal(syscall.SIGHUP)
	eventually(t, "a good file is live again", func() bool {
		_, body := get(t, web+"/fixed/")
		return body == "third"
	})
}

func TestSIGHUPReadsFilesAgain(t *testing.T) {
	t.Parallel()
	for _, how := range []string{"of --config", "of apply"} {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			rotateFiles(t, how == "of --config")
		})
	}
}

// rotateFiles replaces the files of a certificate and sends SIGHUP. The
// certificate came from --config if byConfig is true, or else from the admin
// service.
func rotateFiles(t *testing.T, byConfig bool) {
	a := newAuthority(t)
	n := startNginx(t, nginxConfig{
		ports: 1,
		files: nginxFiles(a.ca, a.server),
		http: func(n *nginx) string {
			return fmt.Sprintf("server {\n listen %s ssl;\n %s\n return 200 $ssl_client_serial;\n}", n.address(0), n.mutualTLS())
		},
	})
	dir := t.TempDir()
	ca := writeFile(t, filepath.Join(dir, "ca.pem"), a.ca.RootPEM())
	cert := writeFile(t, filepath.Join(dir, "client.pem"), a.client.ChainPEM)
	key := writeFile(t, filepath.Join(dir, "client.key"), a.client.KeyPEM)
	file := writeFile(t, filepath.Join(dir, "bridge.yaml"), fmt.Appendf(nil, `
kind: TrustBundle
name: ca
file: %s
---
kind: Certificate
name: client
files: {certificatePath: %s, privateKeyPath: %s}
---
kind: Upstream
name: web
endpoints: [{address: "%s"}]
tls: {certificate: client, trustBundles: [ca], serverName: %s}
---
kind: Listener
name: web
address: 127.0.0.1:0
protocol: PROTOCOL_HTTP
upstream: web
`, ca, cert, key, n.address(0), serverName))
	var g *gateway
	if byConfig {
		g = startGateway(t, "--config", file)
	} else {
		g = startGateway(t, "--file-root", dir)
		if r := g.cli("apply", "-f", file); r.code != 0 {
			t.Fatalf("drawbridge apply: %s", r)
		}
	}
	if _, serial := get(t, "http://"+g.address("web")+"/"); !sameSerial(serial, a.client) {
		t.Fatalf("nginx saw %q", serial)
	}
	// With unchanged files, SIGHUP makes no revision and affects no connection.
	before, made := g.getStatus().GetRevision(), g.upstream("web").GetEndpoints()[0].GetConnectionsMade()
	for i := 0; byConfig && i < 3; i++ { // only --config logs a line to wait for
		said := strings.Count(g.out.String(), "configuration applied")
		g.signal(syscall.SIGHUP)
		eventually(t, "the log reports that the file was applied", func() bool { return strings.Count(g.out.String(), "configuration applied") > said })
	}
	if now := g.getStatus().GetRevision(); now != before {
		t.Errorf("with nothing changed the revision went from %d to %d", before, now)
	}
	if now := g.upstream("web").GetEndpoints()[0].GetConnectionsMade(); now != made {
		t.Errorf("with nothing changed the upstream was replaced: %d connections made, before %d", now, made)
	}

	next := clientCert(t, a.ca, "next")
	writeFile(t, cert, next.ChainPEM)
	writeFile(t, key, next.KeyPEM)
	g.signal(syscall.SIGHUP)
	eventually(t, "nginx sees the certificate now in the file", func() bool {
		_, serial := get(t, "http://"+g.address("web")+"/")
		return sameSerial(serial, next)
	})
}
