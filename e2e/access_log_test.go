// The access log has a record of each request and each TCP connection: the
// client, the upstream, the TLS settings and the result. Rotation loses no
// record, a listener's log can be turned off while connections are open, and
// the log contains no secret.

package e2e

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"google.golang.org/protobuf/proto"

	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

func TestAccessLog(t *testing.T) {
	t.Parallel()
	curl := need(t, "curl")
	a := newAuthority(t)
	backend := serveHTTPS(t, a.serverConfig(t), respondsWith("hello"))
	raw := serveConns(t, a.serverConfig(t), echo)

	dir := t.TempDir()
	log := filepath.Join(dir, "access.log")
	g := startGateway(t, "--access-log", log)
	web, db, plain := listener("web", protocolHTTP, "backend"), listener("db", protocolTCP, "raw"), listener("plain", protocolHTTP, "backend")
	web.Tls = &adminv1.ServerTls{Certificates: []string{"front"}, ClientAuth: adminv1.ClientAuth_CLIENT_AUTH_REQUIRED, ClientTrustBundles: []string{"ca"}}
	g.apply(trustBundle("ca", a.ca), certificate("client", a.client), certificate("front", a.server),
		upstream("backend", a.settings(), backend), upstream("raw", a.settings(), raw), web, db, plain, forward("api", "web", "/api", "backend"))

	certs := t.TempDir()
	file := func(name string, data []byte) string { return writeFile(t, filepath.Join(certs, name), data) }
	ask := func(path string) {
		t.Helper()
		r := command(t, curl, "-sS", "--max-time", "90", "--http1.1", "--cacert", file("ca.pem", a.ca.RootPEM()),
			"--cert", file("cert.pem", a.client.ChainPEM), "--key", file("key.pem", a.client.KeyPEM), "--connect-to", serverName+":443:"+g.address("web"),
			"-A", "a \"line\"\twith \u009b31mred", "-H", "Authorization: Bearer SECRET", "-H", "Cookie: SECRET", "-d", "SECRET", "https://"+serverName+path+"?token=SECRET")
		if r.code != 0 || r.stdout != "hello" {
			t.Fatal(r)
		}
	}
	records := func(path string, want int) []map[string]any {
		t.Helper()
		var all []map[string]any
		eventually(t, fmt.Sprintf("%d records in %s", want, filepath.Base(path)), func() bool {
			text, err := os.ReadFile(path)
			if err != nil && !os.IsNotExist(err) {
				t.Fatal(err)
			}
			return strings.Count(string(text), "\n") >= want
		})
		text, _ := os.ReadFile(path)
		for line := range strings.Lines(string(text)) {
			var r map[string]any
			if err := json.Unmarshal([]byte(line), &r); err != nil {
				t.Fatalf("%v: %q", err, line)
			}
			all = append(all, r)
		}
		if len(all) != want {
			t.Fatalf("%d records, want %d:\n%s", len(all), want, text)
		}
		if strings.Contains(string(text), "SECRET") || strings.Contains(string(text), "PRIVATE KEY") || strings.Contains(string(text), "\u009b") {
			t.Errorf("the access log contains a secret:\n%s", text)
		}
		return all
	}

	ask("/api/one")
	r := records(log, 1)[0]
	block, _ := pem.Decode(a.client.ChainPEM)
	sum := sha256.Sum256(block.Bytes)
	for key, want := range map[string]any{
		"kind": "request", "listener": "web", "route": "api", "upstream": "backend", "endpoint": backend, "client": "127.0.0.1",
		"method": "POST", "host": serverName, "path": "/api/one", "protocol": "HTTP/1.1", "code": 200.0, "attempts": 1.0, "user_agent": "a \"line\"\twith \u009b31mred",
		"bytes_from_client": 6.0, "bytes_to_client": 5.0, "tls_version": "TLS 1.3", "tls_resumed": false, "server_name": serverName,
		"client_subject": "CN=e2e client", "client_fingerprint": hex.EncodeToString(sum[:]),
		"upstream_tls_version": "TLS 1.3", "upstream_tls_resumed": false, "upstream_protocol": "HTTP/2.0",
	} {
		if r[key] != want {
			t.Errorf("%s is %v, want %v", key, r[key], want)
		}
	}
	if info, err := os.Stat(log); err != nil || info.Mode().Perm()&^0o640 != 0 {
		t.Errorf("%v, %v", info.Mode(), err)
	}

	// Rotate the log while a connection is open. The connection's record is
	// written at its end.
	open := dial(t, g.address("db"))
	say := func(word string) {
		t.Helper()
		if _, err := io.WriteString(open, word); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(open, make([]byte, len(word))); err != nil {
			t.Fatal(err)
		}
	}
	say("before")
	if err := os.Rename(log, log+".1"); err != nil {
		t.Fatal(err)
	}
	g.signal(syscall.SIGUSR1)
	eventually(t, "the file exists again", func() bool { _, err := os.Stat(log); return err == nil })
	ask("/api/two")
	say("after")
	_ = open.CloseWrite()
	if rest, err := io.ReadAll(open); len(rest) > 0 || err != nil {
		t.Errorf("%q, %v", rest, err)
	}
	for _, r := range records(log, 2) {
		if r["path"] != "/api/two" && (r["kind"] != "connection" || r["listener"] != "db" || r["bytes_from_client"] != 11.0 || r["ended"] != "closed") {
			t.Errorf("record %v", r)
		}
	}
	records(log+".1", 1)
	if jq, err := exec.LookPath("jq"); err == nil {
		got := command(t, jq, "-e", "-s", `map(select(.kind == "request" and .code == 200 and .duration_ms > 0 and .reason == null)) | length == 1`, log)
		if got.code != 0 {
			t.Error(got)
		}
	}

	// Turn the log of both listeners off while they have open connections.
	open = dial(t, g.address("db"))
	say("on")
	client := &http.Client{Transport: &http.Transport{}}
	t.Cleanup(client.CloseIdleConnections)
	get := func(path string) {
		t.Helper()
		res, err := client.Get("http://" + g.address("plain") + path)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, res.Body)
		_ = res.Body.Close()
	}
	get("/on")
	records(log, 3)
	before := g.listener("plain").GetAccepted()
	off := func(l *adminv1.Listener) *adminv1.Listener {
		l = proto.Clone(l).(*adminv1.Listener)
		l.AccessLog = adminv1.AccessLog_ACCESS_LOG_OFF
		return l
	}
	g.apply(off(plain), off(db))
	say("off")
	get("/off")
	_ = open.Close()
	if now := g.listener("plain").GetAccepted(); now != before {
		t.Errorf("%d connections were accepted, want %d: the open connection was not kept", now, before)
	}
	eventually(t, "the connection has ended", func() bool { return g.listener("db").GetConnections() == 0 })
	g.apply(plain)
	get("/on-again")
	g.stop()
	all := records(log, 4)
	if all[3]["path"] != "/on-again" || all[3]["client_port"] != all[2]["client_port"] {
		t.Errorf("the last records: %v", all[2:])
	}
}

// The gateway continues after the end of the program that reads its standard
// output.
func TestAccessLogOnStandardOutputWhoseReaderLeaves(t *testing.T) {
	t.Parallel()
	g := newGateway(t, filepath.Join(shortDir(t), "data"), "--access-log", "stdout", "--access-log-format", "text")
	fifo := filepath.Join(t.TempDir(), "out")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	reader, err := os.OpenFile(fifo, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	g.run("sh", append([]string{"-c", `out=$1; shift; exec "$@" >"$out"`, "sh", fifo, program(t)}, g.serveArgs()...)...)
	g.awaitReady()
	web := listener("web", protocolHTTP, "")
	g.apply(web, &adminv1.Route{Name: "hello", Listeners: []string{"web"}, Action: &adminv1.Route_Respond{Respond: &adminv1.Respond{Body: "hello"}}})
	url := "http://" + g.address("web") + "/"
	get(t, url)
	lines := make(chan string, 1)
	go func() {
		line, _ := bufio.NewReader(reader).ReadString('\n')
		lines <- line
	}()
	ctx, cancel := context.WithTimeout(t.Context(), testTimeout)
	defer cancel()
	select {
	case line := <-lines:
		if !strings.HasPrefix(line, "127.0.0.1 - - [") || !strings.Contains(line, `] "GET / HTTP/1.1" 200 5 "-" "Go-http-client/1.1" listener=web`) || !strings.HasSuffix(line, "\n") {
			t.Errorf("the first line: %q", line)
		}
	case <-ctx.Done():
		t.Fatal("no line was written")
	}
	_ = reader.Close()
	get(t, url)
	eventually(t, "the log reports the broken pipe", func() bool { return g.out.contains("records cannot be written") && g.out.contains("broken pipe") })
	get(t, url)
	g.stop()
	if !g.out.contains("records are lost because they cannot be written") {
		t.Error("the log does not report the lost records")
	}
}
