// Clients in Go, Python and TypeScript are generated from the .proto files like a
// user's. They rotate a certificate, repeat a write whose answer was lost,
// create, wait, watch and resume. The code in docs/automation.md is part of them.

package e2e

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

// generateClient runs plugins with buf, which parses the .proto files itself:
// Debian's protoc is too old for some of their options.
func generateClient(t testing.TB, dir, plugins string) {
	t.Helper()
	buf := need(t, "buf")
	template := writeFile(t, filepath.Join(dir, "buf.gen.yaml"), []byte("version: v2\nplugins:\n"+plugins))
	runOrFail(t, "..", buf, "generate", "--template", template)
}

func runOrFail(t testing.TB, dir, name string, args ...string) {
	t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", name, err, out)
	}
}

func TestAGoClientAutomates(t *testing.T) {
	t.Parallel()
	binary := filepath.Join(t.TempDir(), "automate")
	runOrFail(t, ".", "go", "build", "-o", binary, "./testdata/go")
	testClientProgram(t, "go", func(args ...string) *process { return start(t, binary, args...) })
}

func TestAPythonClientAutomates(t *testing.T) {
	t.Parallel()
	protoc, plugin := need(t, "protoc"), need(t, "grpc_python_plugin")
	const python = "/usr/bin/python3" // this Python has the system's packages
	if err := exec.Command(python, "-c", "import grpc, google.protobuf").Run(); err != nil {
		missing(t, python+" has no grpc and protobuf: on Debian python3-grpcio and python3-protobuf")
	}
	dir := t.TempDir()
	generateClient(t, dir, "  - protoc_builtin: python\n    protoc_path: "+protoc+"\n    out: "+dir+"\n  - local: "+plugin+"\n    out: "+dir+"\n")
	script, err := filepath.Abs("testdata/python/automate.py")
	if err != nil {
		t.Fatal(err)
	}
	testClientProgram(t, "python", func(args ...string) *process {
		return start(t, "env", append([]string{"PYTHONPATH=" + dir, python, script}, args...)...)
	})
}

func TestATypeScriptClientAutomates(t *testing.T) {
	t.Parallel()
	node := need(t, "node")
	modules := os.Getenv("CONNECT_MODULES")
	if _, err := os.Stat(filepath.Join(modules, "@connectrpc", "connect-node")); modules == "" || err != nil {
		missing(t, "there are no modules of npm for the client; `make e2e` installs them, and sets CONNECT_MODULES")
	}
	dir := t.TempDir()
	if err := os.Symlink(modules, filepath.Join(dir, "node_modules")); err != nil {
		t.Fatal(err)
	}
	source, err := os.ReadFile("testdata/connect/automate.ts")
	if err != nil {
		t.Fatal(err)
	}
	writeFile(t, filepath.Join(dir, "automate.ts"), source)
	writeFile(t, filepath.Join(dir, "package.json"), []byte(`{"type": "module"}`))
	generateClient(t, dir, "  - local: "+filepath.Join(modules, ".bin", "protoc-gen-es")+"\n    out: "+dir+"\n    opt: [target=ts, import_extension=js]\n")
	runOrFail(t, dir, node, filepath.Join(modules, "typescript", "bin", "tsc"), "--target", "es2022", "--module", "nodenext", "--moduleResolution", "nodenext",
		"--strict", "--skipLibCheck", "--types", "node", "automate.ts")
	testClientProgram(t, "typescript", func(args ...string) *process {
		return start(t, node, append([]string{filepath.Join(dir, "automate.js")}, args...)...)
	})
}

// testClientProgram runs a client program and checks its results, which are the same
// for all programs.
func testClientProgram(t *testing.T, name string, run func(args ...string) *process) {
	a := newAuthority(t)
	next := clientCert(t, a.ca, "rotated")
	g := startGateway(t)
	web := upstream("web", a.settings(), serveConns(t, a.serverConfig(t), echo))
	web.HealthCheck = &adminv1.HealthCheck{Kind: &adminv1.HealthCheck_Tls{Tls: &adminv1.TlsCheck{}}}
	g.apply(trustBundle("ca", a.ca), certificate("client", a.client), web)
	before := g.getStatus().GetRevision()
	chain, key := writeFile(t, filepath.Join(t.TempDir(), "chain.pem"), next.ChainPEM), writeFile(t, filepath.Join(t.TempDir(), "key.pem"), next.KeyPEM)

	client := run(g.socketThatLosesAnswers(), chain, key)
	if code := client.wait(); code != 0 {
		t.Fatalf("exit code %d\n%s", code, client.out)
	}
	out := client.out.String()
	for _, want := range []string{
		"dry run: ", "UPDATED\n", "retry: ", "rotated: ", "UNCHANGED ", "create only: ", "CREATED\n", "healthy\n", "changed by another, once more\n", "done\n",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
	for _, want := range []string{"state: true 4", "resumed: false [web]", "event of the last revision: true", "create only: alreadyexists"} {
		plain := strings.NewReplacer("'", "", `"`, "", "[ ", "[", " ]", "]", "_", "").Replace(strings.ToLower(out))
		if !strings.Contains(plain, want) {
			t.Errorf("no %q in\n%s", want, plain)
		}
	}
	got, err := g.admin.GetCertificate(longContext(t), &adminv1.GetCertificateRequest{Name: "client"})
	if err != nil || got.GetInfo().GetSubject() != "CN=rotated" || got.GetRevision() != before+1 {
		t.Errorf("the certificate is %v, %v", got, err)
	}
	web, err = g.admin.GetUpstream(longContext(t), &adminv1.GetUpstreamRequest{Name: "web"})
	if err != nil || web.GetLabels()["owner"] != name || g.getStatus().GetRevision() != before+3 {
		t.Errorf("the upstream is %v, %v", web, err)
	}
}

// socketThatLosesAnswers returns a socket in front of the admin service. The gateway
// performs the first write, but its answer is lost because the socket ends the
// connection.
func (g *gateway) socketThatLosesAnswers() string {
	g.t.Helper()
	path := filepath.Join(shortDir(g.t), "lossy.sock")
	lis, err := net.Listen("unix", path)
	if err != nil {
		g.t.Fatal(err)
	}
	before := g.getStatus().GetRevision()
	var lost atomic.Bool
	var serving sync.WaitGroup
	g.t.Cleanup(serving.Wait)
	g.t.Cleanup(func() { lis.Close() })
	serving.Go(func() {
		for {
			client, err := lis.Accept()
			if err != nil {
				return
			}
			server, err := net.Dial("unix", g.socket)
			if err != nil {
				client.Close()
				continue
			}
			serving.Go(func() { relay(server, client, func() bool { return true }) })
			// The write may come on a later connection: on a busy machine a client may
			// give up connecting and try again.
			serving.Go(func() {
				relay(client, server, func() bool {
					return lost.Load() || g.getStatus().GetRevision() == before || !lost.CompareAndSwap(false, true)
				})
			})
		}
	})
	return path
}

// relay copies until either side is closed or may returns false. Then it closes
// both.
func relay(to, from net.Conn, may func() bool) {
	defer to.Close()
	defer from.Close()
	buf := make([]byte, 64<<10)
	for {
		n, err := from.Read(buf)
		if n > 0 && may() {
			_, err = to.Write(buf[:n])
		} else if err == nil {
			return
		}
		if err != nil {
			return
		}
	}
}

// Each line of client code in docs/automation.md is a line of the tested program
// in that language.
func TestAutomationPageShowsTheTestedClients(t *testing.T) {
	page, err := os.ReadFile("../docs/automation.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ heading, program string }{
		{"// Go", "testdata/go/main.go"}, {"# Python", "testdata/python/automate.py"}, {"// TypeScript", "testdata/connect/automate.ts"},
	} {
		source, err := os.ReadFile(c.program)
		if err != nil {
			t.Fatal(err)
		}
		lines := map[string]bool{}
		for line := range strings.Lines(string(source)) {
			lines[strings.TrimSpace(line)] = true
		}
		shown, blocks := false, 0
		for line := range strings.Lines(string(page)) {
			code := strings.TrimSpace(line)
			switch {
			case code == c.heading && strings.HasPrefix(line, "    "):
				shown = true
				blocks++
			case code == "":
				shown = false
			case shown && !lines[code]:
				t.Errorf("%s has no line %q", c.program, code)
			}
		}
		if blocks < 6 {
			t.Errorf("the page has %d blocks of %s, want one for each idiom", blocks, c.heading)
		}
	}
}
