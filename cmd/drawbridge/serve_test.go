package main

import (
	"log"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"github.com/drawbridge-gateway/drawbridge/certs/certstest"
	"github.com/drawbridge-gateway/drawbridge/cmd/drawbridge/exit"
)

func TestFlagsOfServeAreChecked(t *testing.T) {
	for _, tt := range []struct{ args, want string }{
		{"--log-level loud", `--log-level "loud": must be trace`},
		{"--log-format xml", `--log-format "xml": must be text or json`},
		{"--access-log-format xml", `--access-log-format "xml": must be json or text`},
		{"--drain-timeout 0s", "must be more than 0s"},
		{"--data-dir=", "--data-dir: must not be empty"},
		{"--admin 127.0.0.1:1", "must be unix:PATH; --admin-tcp serves over TCP"},
		{"--admin-tcp 127.0.0.1:0", "never served over TCP without mutual TLS"},
		{"--admin-tcp 127.0.0.1:0 --admin-tls-cert c --admin-tls-key k", "needs --admin-tls-cert, --admin-tls-key and --admin-client-ca"},
		{"--admin-client-ca ca", "require --admin-tcp"},
		{"--config -", "--config must be a file"},
		{"--file-root /etc --file-root /nowhere", `--file-root "/nowhere": must be a directory`},
		{"--file-root=", `--file-root "": must be a directory`},
	} {
		args := append([]string{"serve", "--data-dir", filepath.Join(t.TempDir(), "d")}, strings.Fields(tt.args)...)
		shell{}.run(t.Context(), args...).want(t, exit.Usage, tt.want)
	}
}

func TestAWrongFileAtStartEndsTheProgramAndChangesNothing(t *testing.T) {
	dir := tempDir(t)
	data := filepath.Join(dir, "data")
	bad := writeFile(t, dir, "bad.yaml", "kind: Listener\nname: web\nadress: x\nprotcol: HTTP\n")
	shell{}.run(t.Context(), "serve", "--data-dir", data, "--config", bad).
		want(t, exit.Invalid, "bad.yaml:3: document 1 (Listener web): adress", "bad.yaml:4: ", "2 faults")
	if _, err := os.Stat(data); err == nil {
		t.Error("the data directory was created")
	}
	dangling := writeFile(t, dir, "dangling.yaml", "kind: TrustBundle\nname: sys\nsystem: {}\n---\nkind: Listener\nname: web\naddress: 127.0.0.1:0\nprotocol: HTTP\nupstream: none\n")
	shell{}.run(t.Context(), "serve", "--data-dir", data, "--config", dangling).
		want(t, exit.Invalid, "dangling.yaml:9: document 2 (Listener web): upstream: ")
	empty := writeFile(t, dir, "empty.yaml", "---\n")
	shell{}.run(t.Context(), "serve", "--data-dir", data, "--config", empty).want(t, exit.Invalid, "would delete everything")
	shell{}.run(t.Context(), "serve", "--data-dir", data, "--config", filepath.Join(dir, "none")).want(t, exit.Invalid, "no such file")

	r := start(t, nil, "serve", "--data-dir", data)
	r.log.until(t, "ready", 1)
	shell{}.run(t.Context(), "get", "trustbundles", "--admin", "unix:"+filepath.Join(data, "admin.sock")).want(t, exit.OK, "No trust bundles.")
	shell{}.run(t.Context(), "serve", "--data-dir", data).want(t, exit.Failure, "Error: ")
}

func TestTheFileIsTheConfigurationAtStartAndOnSIGHUP(t *testing.T) {
	dir := tempDir(t)
	config := writeFile(t, dir, "db.yaml", "kind: TrustBundle\nname: one\nsystem: {}\n")
	r, sh := serve(t, "--config", config, "--log-format", "json")
	r.log.until(t, `"configuration applied"`, 1)
	sh.run(t.Context(), "get", "trustbundles").want(t, exit.OK, "one")

	hangup := func() {
		if err := syscall.Kill(os.Getpid(), syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
	}
	writeFile(t, dir, "db.yaml", "kind: TrustBundle\nname: two\nsystem: {}\n")
	hangup()
	r.log.until(t, `"configuration applied"`, 2)
	after := sh.run(t.Context(), "get", "trustbundles")
	after.want(t, exit.OK, "two")
	if strings.Contains(after.out, "one") {
		t.Errorf("not pruned:\n%s", after.out)
	}

	writeFile(t, dir, "db.yaml", "kind: TrustBundle\nname: three\nsytem: {}\n")
	hangup()
	r.log.until(t, "SIGHUP: reload failed", 1)
	r.log.until(t, "did you mean system?", 1)
	writeFile(t, dir, "db.yaml", "kind: TrustBundle\nname: three\nsystem: {}\n---\nkind: Route\nname: r\nlisteners: [none]\n")
	hangup()
	r.log.until(t, "SIGHUP: reload failed", 2)
	r.log.until(t, "db.yaml:7: document 2 (Route r): listeners[0]", 1)
	sh.run(t.Context(), "get", "trustbundles").want(t, exit.OK, "two")
	if code := r.stop(); code != exit.OK {
		t.Errorf("exit code %d", code)
	}
}

func TestSIGHUPReadsFilesOfCertificatesAgain(t *testing.T) {
	r, sh := serve(t)
	file := site(t)
	sh.run(t.Context(), "apply", "-f", file).want(t, exit.OK)
	ca := certstest.NewCA(t)
	next := ca.Client(t, "gateway-2")
	dir := filepath.Dir(file)
	writeFile(t, dir, "client.pem", string(next.ChainPEM))
	writeFile(t, dir, "client-key.pem", string(next.KeyPEM))

	updates := start(t, sh.env, "watch")
	updates.out.until(t, "revision 1 ", 1)
	if err := syscall.Kill(os.Getpid(), syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	updates.out.until(t, "updated  Certificate client", 1)
	sh.run(t.Context(), "get", "certificate", "client").want(t, exit.OK, "CN=gateway-2")

	writeFile(t, dir, "client.pem", "garbage")
	if err := syscall.Kill(os.Getpid(), syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	r.log.until(t, "SIGHUP: reload failed", 1)
	sh.run(t.Context(), "get", "certificate", "client").want(t, exit.OK, "CN=gateway-2")
}

func TestFilesAreReadOnlyBelowFileRoots(t *testing.T) {
	data, outside := filepath.Join(tempDir(t), "data"), filepath.Dir(site(t))
	config := filepath.Join(outside, "site.yaml")
	serve := func(args ...string) (*backgroundCommand, shell) {
		r := start(t, nil, append([]string{"serve", "--data-dir", data}, args...)...)
		r.log.until(t, "ready", 1)
		return r, shell{env: map[string]string{"DRAWBRIDGE_ADMIN": "unix:" + filepath.Join(data, "admin.sock")}}
	}

	// By default, a gateway does not read files from arbitrary directories.
	r, sh := serve()
	refused := sh.run(t.Context(), "apply", "-f", config)
	refused.want(t, exit.Invalid, "document 1 (TrustBundle corp): file: ", "document 2 (Certificate client): files.certificatePath: ")
	absent := strings.ReplaceAll(readFile(t, config), "client.pem", "nothing.pem")
	again := sh.run(t.Context(), "apply", "-f", writeFile(t, outside, "absent.yaml", absent))
	if tells := strings.ReplaceAll(strings.ReplaceAll(again.err, "absent.yaml", "site.yaml"), "nothing.pem", "client.pem"); tells != refused.err {
		t.Errorf("the output reveals whether a file exists:\n%s%s", refused.err, again.err)
	}
	r.stop()

	// It reads files from the directory of --config, which may be a file or a directory,
	// and from --file-root.
	for _, args := range [][]string{{"--config", config}, {"--config", dirOnly(t, config)}, {"--config", config, "--file-root", outside}} {
		r, sh = serve(args...)
		sh.run(t.Context(), "get", "certificate", "client").want(t, exit.OK, "CN=gateway")
		r.stop()
	}
	// An explicit --file-root replaces the default.
	shell{}.run(t.Context(), "serve", "--data-dir", data, "--config", config, "--file-root", t.TempDir()).
		want(t, exit.Invalid, "document 2 (Certificate client): files.certificatePath: ")
}

// dirOnly returns a directory with the files of path's directory, but with path
// as its only configuration.
func dirOnly(t *testing.T, path string) string {
	t.Helper()
	dir := t.TempDir()
	for _, name := range []string{filepath.Base(path), "ca.pem", "client.pem", "client-key.pem"} {
		writeFile(t, dir, name, readFile(t, filepath.Join(filepath.Dir(path), name)))
	}
	return dir
}

func readFile(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestTheAccessLogIsReopenedOnSIGUSR1(t *testing.T) {
	usr1 := func() {
		if err := syscall.Kill(os.Getpid(), syscall.SIGUSR1); err != nil {
			t.Fatal(err)
		}
	}
	config := writeFile(t, tempDir(t), "web.yaml", "kind: Listener\nname: web\naddress: 127.0.0.1:0\nprotocol: HTTP\n")
	dir := tempDir(t)
	path := filepath.Join(dir, "access.log")
	r, _ := serve(t, "--config", config, "--access-log", path, "--access-log-format", "text")
	address := regexp.MustCompile(`listener up: .*address=(127\.0\.0\.1:\d+)`).FindStringSubmatch(r.log.String())
	if address == nil {
		t.Fatalf("no address in the log:\n%s", r.log)
	}
	ask := func(path string) {
		res, err := http.Get("http://" + address[1] + path)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		http.DefaultClient.CloseIdleConnections()
	}
	ask("/before")
	if err := os.Rename(path, path+".1"); err != nil {
		t.Fatal(err)
	}
	usr1()
	r.log.until(t, "SIGUSR1: access log reopened", 1)
	ask("/after")
	if err := os.Rename(dir, dir+".gone"); err != nil {
		t.Fatal(err)
	}
	usr1()
	r.log.until(t, "SIGUSR1: cannot reopen the access log; keeping the current file", 1)
	if code := r.stop(); code != exit.OK {
		t.Errorf("exit code %d", code)
	}
	before, after := readFile(t, path[:len(dir)]+".gone/access.log.1"), readFile(t, dir+".gone/access.log")
	if !strings.Contains(before+after, `"GET /before HTTP/1.1" 404 9 "-" "Go-http-client/1.1" listener=web`) || !strings.Contains(after, `"GET /after HTTP/1.1" 404`) ||
		strings.Count(before+after, "\n") != 2 {
		t.Errorf("before:\n%safter:\n%s", before, after)
	}

	// Without a log file, SIGUSR1 has no effect.
	r, _ = serve(t)
	usr1()
	r.log.until(t, "SIGUSR1: the access log is not written to a file", 1)
	if code := r.stop(); code != exit.OK {
		t.Errorf("exit code %d", code)
	}
	shell{}.run(t.Context(), "serve", "--data-dir", filepath.Join(tempDir(t), "d"), "--access-log", filepath.Join(dir, "none", "a")).
		want(t, exit.Failure, "access log: ", "no such file or directory")
}

func TestServeOverTCPAcceptsOnlyTrustedClients(t *testing.T) {
	dir := tempDir(t)
	ca := certstest.NewCA(t)
	server, client := ca.Server(t), ca.Client(t, "operator")
	at := func(name string, text []byte) string { return writeFile(t, dir, name, string(text)) }
	trust := at("ca.pem", ca.TrustPEM())
	r, _ := serve(t, "--admin", "unix:"+filepath.Join(dir, "own.sock"), "--admin-tcp", "127.0.0.1:0",
		"--admin-tls-cert", at("s.pem", server.ChainPEM), "--admin-tls-key", at("s-key.pem", server.KeyPEM), "--admin-client-ca", trust)

	address := regexp.MustCompile(`admin API up: address=(127\.0\.0\.1:\d+)`).FindStringSubmatch(r.log.String())
	if address == nil {
		t.Fatalf("no address in the log:\n%s", r.log)
	}
	status := func(args ...string) (r result) {
		args = append([]string{"status", "--admin", address[1], "--admin-tls-ca", trust}, args...)
		// On a busy machine the client may fail to connect in time: try again. A
		// stream that the client cannot decrypt is always an error.
		for range 5 {
			if r = (shell{}).run(t.Context(), args...); r.code != exit.Unavailable || strings.Contains(r.err, "local error: tls") {
				break
			}
		}
		return r
	}
	status().want(t, exit.Denied, "It accepts only clients whose certificate")
	status("--admin-tls-cert", at("c.pem", client.ChainPEM), "--admin-tls-key", at("c-key.pem", client.KeyPEM)).
		want(t, exit.OK, "revision 0, ready")
	shell{}.run(t.Context(), "status", "--admin", "unix:"+filepath.Join(dir, "own.sock")).want(t, exit.OK, "revision 0, ready")
}

func TestTheStandardLoggerWritesToTheLog(t *testing.T) {
	r, _ := serve(t, "--log-format", "json", "--log-level", "debug")
	log.Print("Unsolicited response \"\x1b[31m\"\nof an upstream")
	r.log.until(t, `"@message":"Unsolicited response \"\u001b[31m\"\nof an upstream"`, 1)
	if code := r.stop(); code != exit.OK {
		t.Errorf("exit code %d", code)
	}
}
