// Silent connections to the admin service and to ops neither use the
// descriptors of traffic nor lock out the operator.

package e2e

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"syscall"
	"testing"
	"time"

	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
	"google.golang.org/grpc/credentials"
)

// adminUp matches the log line with the address of --admin-tcp.
var adminUp = regexp.MustCompile(`"@message":"admin API up".*?"address":"([0-9.]+:[0-9]+)"`)

// adminTCPFlags returns the flags that serve the admin API over TCP.
func adminTCPFlags(t *testing.T, a *authority) []string {
	dir := t.TempDir()
	for name, data := range nginxFiles(a.ca, a.server) {
		writeFile(t, filepath.Join(dir, name), data)
	}
	return []string{"--admin-tcp", "127.0.0.1:0", "--admin-tls-cert", filepath.Join(dir, "server.pem"),
		"--admin-tls-key", filepath.Join(dir, "server.key"), "--admin-client-ca", filepath.Join(dir, "ca.pem")}
}

func TestIdleConnectionsToTheAdminServiceAndOpsStarveNoTraffic(t *testing.T) {
	t.Parallel()
	a := newAuthority(t)
	raw := serveConns(t, a.serverConfig(t), echo)
	g := startGatewayWithin(t, "-n 256", append(adminTCPFlags(t, a), "--ops", "127.0.0.1:0")...)
	g.serveBoth(a, raw, raw)
	adminTCP, ops := g.logged(adminUp), g.logged(opsUp)

	const idle = 612
	for _, address := range []string{adminTCP, ops} {
		for n := range idle { // from many addresses, because each address has its own share
			d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 1, byte(1+n%200))}, Timeout: testTimeout}
			c, err := d.Dial("tcp", address)
			if err != nil {
				if errors.Is(err, syscall.ECONNRESET) {
					continue // closed before Dial returned
				}
				t.Fatalf("connection %d to %s: %v", n, address, err)
			}
			t.Cleanup(func() { _ = c.Close() })
		}
	}

	for n := range 30 {
		c := dial(t, g.address("raw"))
		if err := pingPong(c, "traffic"); err != nil {
			t.Fatalf("connection %d of traffic: %v", n, err)
		}
	}
	if d := g.getStatus().GetDescriptors(); d.GetPauses() != 0 || d.GetPausedListeners() != 0 {
		t.Errorf("listeners paused because descriptors ran out: %v", d)
	}
	if code, body := get(t, "http://"+ops+"/readyz"); code != 200 {
		t.Errorf("/readyz: %d %q", code, body)
	}
	conn := dialAdmin(t, adminTCP, credentials.NewTLS(a.clientConfig(t)))
	if _, err := adminv1.NewStatusServiceClient(conn).GetStatus(longContext(t), &adminv1.GetStatusRequest{}); err != nil {
		t.Errorf("a caller with a certificate: %v", err)
	}
}

// Each phase of a connection before a request has a deadline.
func TestSilentConnectionsToTheAdminServiceAndOpsAreClosed(t *testing.T) {
	t.Parallel()
	a := newAuthority(t)
	g := startGateway(t, append(adminTCPFlags(t, a), "--ops", "127.0.0.1:0")...)
	adminTCP, ops := g.logged(adminUp), g.logged(opsUp)
	withoutPreface := a.clientConfig(t)
	withoutPreface.NextProtos = []string{"h2"}
	silent := map[string]net.Conn{
		"the admin service, before TLS":        dial(t, adminTCP),
		"the admin service, before HTTP/2":     tls.Client(dial(t, adminTCP), withoutPreface),
		"ops, before a request":                dial(t, ops),
		"ops, in the middle of a request line": dial(t, ops),
	}
	if err := silent["the admin service, before HTTP/2"].(*tls.Conn).Handshake(); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(silent["ops, in the middle of a request line"], "GET /hea"); err != nil {
		t.Fatal(err)
	}
	for what, c := range silent {
		_ = c.SetDeadline(time.Now().Add(2 * testTimeout)) // the admin service waits longer than most clients do
		if _, err := io.Copy(io.Discard, c); errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("a silent connection to %s is still open", what)
		}
	}
}
