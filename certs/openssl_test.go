package certs_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/drawbridge-gateway/drawbridge/certs"
	"github.com/drawbridge-gateway/drawbridge/certs/certstest"
)

// OpenSSL's server sends two tickets for each connection and accepts each
// once.
func TestClientResumesWithOpenSSL(t *testing.T) {
	ca := certstest.NewCA(t)
	server, file := ca.Server(t, "upstream.test"), fileMaker(t)
	for _, version := range []string{"-tls1_2", "-tls1_3"} {
		t.Run(version, func(t *testing.T) {
			addr := sServer(t, version, "-naccept", "4", "-rev",
				"-cert", file("cert.pem", server.ChainPEM), "-key", file("key.pem", server.KeyPEM),
				"-CAfile", file("ca.pem", ca.TrustPEM()), "-Verify", "1", "-verify_return_error")
			client := newClient(t, certs.ClientOptions{
				Certificate: certstest.Certificate(t, ca.Client(t, "client-a")),
				Trust:       []*certs.TrustBundle{ca.Trust(t)}, ServerName: "upstream.test",
			})
			for i := range 4 {
				resumed, err := exchange(t, client, addr)
				if err != nil || resumed != (i > 0) {
					t.Fatalf("connection %d: resumed %v, error %v", i, resumed, err)
				}
			}
		})
	}
}

// sServer runs `openssl s_server` until the test ends, and returns its address.
func sServer(t *testing.T, args ...string) string {
	t.Helper()
	path, err := exec.LookPath("openssl")
	if err != nil {
		t.Skip("openssl is not installed")
	}
	// -accept 0 takes a free port, and prints it.
	cmd := exec.Command(path, append([]string{"s_server", "-accept", "127.0.0.1:0"}, args...)...)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	drained := make(chan struct{})
	t.Cleanup(func() {
		cmd.Process.Kill()
		<-drained
		cmd.Wait()
	})
	lines := bufio.NewScanner(out)
	addr := ""
	for addr == "" && lines.Scan() {
		if rest, ok := strings.CutPrefix(lines.Text(), "ACCEPT "); ok {
			addr = strings.TrimSpace(rest)
		}
	}
	go func() { defer close(drained); io.Copy(io.Discard, out) }()
	if _, _, err := net.SplitHostPort(addr); err != nil {
		t.Fatalf("openssl listens at %q: %v", addr, err)
	}
	return addr
}

// fileMaker returns a function that writes files and returns their paths.
func fileMaker(t *testing.T) func(name string, text []byte) string {
	dir := t.TempDir()
	return func(name string, text []byte) string {
		t.Helper()
		p := filepath.Join(dir, name)
		if err := os.WriteFile(p, text, 0o600); err != nil {
			t.Fatal(err)
		}
		return p
	}
}

// exchange sends a line to a server that sends it back reversed.
func exchange(t *testing.T, c *certs.Client, addr string) (resumed bool, err error) {
	t.Helper()
	raw, err := net.Dial("tcp", addr)
	if err != nil {
		return false, err
	}
	defer raw.Close()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	conn, err := c.Handshake(ctx, raw)
	if err != nil {
		return false, err
	}
	raw.SetDeadline(time.Now().Add(time.Minute))
	if _, err := fmt.Fprintln(conn, "drawbridge"); err != nil {
		return false, err
	}
	line, err := bufio.NewReader(conn).ReadString('\n')
	if err == nil && line != "egdirbward\n" {
		err = fmt.Errorf("answered %q", line)
	}
	conn.Close()
	return conn.ConnectionState().DidResume, err
}
