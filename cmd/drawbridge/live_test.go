package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/drawbridge-gateway/drawbridge/certs/certstest"
	"github.com/drawbridge-gateway/drawbridge/cmd/drawbridge/command"
)

// testTimeout bounds the wait for an event, so that a fault fails only one test
// and not the whole run.
const testTimeout = time.Minute

// An outputLog is a writer whose output a test can wait for.
type outputLog struct {
	mu      sync.Mutex
	text    bytes.Buffer
	changed chan struct{} // closed and replaced at each write
}

func newOutputLog() *outputLog { return &outputLog{changed: make(chan struct{})} }

func (w *outputLog) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	close(w.changed)
	w.changed = make(chan struct{})
	return w.text.Write(p)
}

func (w *outputLog) String() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.text.String()
}

// until waits until text was written n times.
func (w *outputLog) until(t *testing.T, text string, n int) {
	t.Helper()
	deadline := time.After(testTimeout)
	for {
		w.mu.Lock()
		found, changed := strings.Count(w.text.String(), text) >= n, w.changed
		w.mu.Unlock()
		if found {
			return
		}
		select {
		case <-changed:
		case <-deadline:
			t.Fatalf("no %q in:\n%s", text, w)
		}
	}
}

// A backgroundCommand runs until it is stopped.
type backgroundCommand struct {
	out, log *outputLog
	stop     func() int // stops the command and returns its exit code
}

// start runs a command line in the background, until the end of the test.
func start(t *testing.T, env map[string]string, args ...string) *backgroundCommand {
	t.Helper()
	r := &backgroundCommand{out: newOutputLog(), log: newOutputLog()}
	c := &cli{Env: &command.Env{Program: "drawbridge", UID: os.Geteuid(), In: strings.NewReader(""), Out: r.out, Err: r.log, LookupEnv: func(name string) (string, bool) {
		v, ok := env[name]
		return v, ok
	}}}
	ctx, cancel := context.WithCancel(context.Background())
	code := make(chan int, 1)
	go func() { code <- c.run(ctx, args) }()
	r.stop = sync.OnceValue(func() int {
		cancel()
		return <-code
	})
	t.Cleanup(func() { r.stop() })
	return r
}

// serve starts a gateway on a new data directory. It returns the gateway, and a
// shell for it. The gateway may read files from any temporary directory.
func serve(t *testing.T, args ...string) (*backgroundCommand, shell) {
	t.Helper()
	dir := filepath.Join(tempDir(t), "data")
	r := start(t, nil, append([]string{"serve", "--data-dir", dir, "--file-root", os.TempDir(), "--drain-timeout", "1s"}, args...)...)
	r.log.until(t, "ready", 1)
	return r, shell{env: map[string]string{"DRAWBRIDGE_ADMIN": "unix:" + filepath.Join(dir, "admin.sock")}}
}

// site writes a configuration with its certificates to a new directory and
// returns its path. The configuration has a resource of every kind; its
// listeners use ports that the kernel chooses.
func site(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	ca := certstest.NewCA(t)
	client, server := ca.Client(t, "gateway"), ca.Server(t, "front.test")
	writeFile(t, dir, "ca.pem", string(ca.TrustPEM()))
	writeFile(t, dir, "client.pem", string(client.ChainPEM))
	writeFile(t, dir, "client-key.pem", string(client.KeyPEM))
	indent := func(b []byte) string { return strings.ReplaceAll(strings.TrimSpace(string(b)), "\n", "\n    ") }
	return writeFile(t, dir, "site.yaml", fmt.Sprintf(`kind: TrustBundle
name: corp
file: ca.pem
---
kind: Certificate
name: client
files: {certificatePath: client.pem, privateKeyPath: client-key.pem}
---
kind: Certificate
name: front
pem:
  certificateChain: |
    %s
  privateKey: |
    %s
---
kind: Upstream
name: payments
endpoints: [{address: "127.0.0.1:9"}, {address: "127.0.0.1:10", backup: true}]
tls: {certificate: client, trustBundles: [corp], serverName: payments.test, verifyDepth: 1}
---
kind: Upstream
name: plain
endpoints: [{address: "unix:/nowhere.sock"}]
plaintext: {}
---
kind: Listener
name: web
address: 127.0.0.1:0
protocol: HTTP
upstream: payments
---
kind: Listener
name: secure
address: 127.0.0.1:0
protocol: TCP
tls: {certificates: [front], clientAuth: REQUIRED, clientTrustBundles: [corp]}
upstream: plain
---
kind: Route
name: v2
listeners: [web]
match: {hosts: [pay.example.com], path: {prefix: /v2/}, methods: [GET]}
forward: {upstreams: [{name: payments, weight: 3}, {name: plain, weight: 1}]}
---
kind: Route
name: old
listeners: [web]
match: {path: {exact: /old}}
redirect: {path: /new, code: 301}
`, indent(server.ChainPEM), indent(server.KeyPEM)))
}
