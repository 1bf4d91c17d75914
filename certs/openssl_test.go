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

// OpenSSL's server sends two tickets for each connection and takes each once.
func TestClientResumesWithOpenSSL(t *testing.T) {
	path, err := exec.LookPath("openssl")
	if err != nil {
		t.Skip("no openssl here")
	}
	ca := certstest.NewCA(t)
	server, dir := ca.Server(t, "upstream.test"), t.TempDir()
	file := func(name string, text []byte) string {
		p := filepath.Join(dir, name)
		if err := os.WriteFile(p, text, 0o600); err != nil {
			t.Fatal(err)
		}
		return p
	}
	for _, version := range []string{"-tls1_2", "-tls1_3"} {
		t.Run(version, func(t *testing.T) {
			// -accept 0 takes a free port, and prints it.
			cmd := exec.Command(path, "s_server", "-accept", "127.0.0.1:0", version, "-naccept", "4", "-rev",
				"-cert", file("cert.pem", server.ChainPEM), "-key", file("key.pem", server.KeyPEM),
				"-CAfile", file("ca.pem", ca.TrustPEM()), "-Verify", "1", "-verify_return_error")
			out, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			defer cmd.Wait()
			defer cmd.Process.Kill()
			lines := bufio.NewScanner(out)
			addr := ""
			for addr == "" && lines.Scan() {
				if rest, ok := strings.CutPrefix(lines.Text(), "ACCEPT "); ok {
					addr = strings.TrimSpace(rest)
				}
			}
			if _, _, err := net.SplitHostPort(addr); err != nil {
				t.Fatalf("openssl listens at %q: %v", addr, err)
			}
			drained := make(chan struct{})
			go func() { defer close(drained); io.Copy(io.Discard, out) }()
			defer func() { cmd.Process.Kill(); <-drained }()

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

// exchange sends a line to a server that sends it back reversed.
func exchange(t *testing.T, c *certs.Client, addr string) (resumed bool, err error) {
	t.Helper()
	raw, err := net.Dial("tcp", addr)
	if err != nil {
		return false, err
	}
	defer raw.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	conn, err := c.Handshake(ctx, raw)
	if err != nil {
		return false, err
	}
	raw.SetDeadline(time.Now().Add(10 * time.Second))
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
