// The admin service over TCP answers only clients with a certificate of its
// authority. Without the files for mutual TLS, the program does not start.

package e2e

import (
	"context"
	"crypto/tls"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/drawbridge-gateway/drawbridge/certs/pki"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
)

func TestAdminOverTCPNeedsAClientCertificate(t *testing.T) {
	t.Parallel()
	a, stranger := newAuthority(t), newAuthority(t)
	dir := t.TempDir()
	certFile, keyFile, caFile := filepath.Join(dir, "server.pem"), filepath.Join(dir, "server.key"), filepath.Join(dir, "ca.pem")
	clientFile := writeFile(t, filepath.Join(dir, "client.pem"), a.client.ChainPEM)
	clientKeyFile := writeFile(t, filepath.Join(dir, "client.key"), a.client.KeyPEM)

	_, address := launchOn(t, func(address string) []string {
		host, _, _ := net.SplitHostPort(address)
		server := issue(t, a.ca, pki.LeafOptions{CommonName: serverName, DNSNames: []string{serverName}, IPs: []net.IP{net.ParseIP(host)}, Usage: pki.Server})
		for name, data := range nginxFiles(a.ca, server) {
			writeFile(t, filepath.Join(dir, name), data)
		}
		return []string{"--admin-tcp", address, "--admin-tls-cert", certFile, "--admin-tls-key", keyFile, "--admin-client-ca", caFile}
	})

	ask := func(creds credentials.TransportCredentials) error {
		ctx, cancel := context.WithTimeout(t.Context(), testTimeout)
		defer cancel()
		_, err := adminv1.NewStatusServiceClient(dialAdmin(t, address, creds)).GetStatus(ctx, &adminv1.GetStatusRequest{})
		return err
	}
	config := func(certificates ...tls.Certificate) *tls.Config {
		return &tls.Config{RootCAs: pool(a.ca), ServerName: serverName, Certificates: certificates}
	}
	if err := ask(credentials.NewTLS(config(keyPair(t, a.client)))); err != nil {
		t.Errorf("with a certificate: %v", err)
	}
	old := config(keyPair(t, a.client))
	old.MaxVersion = tls.VersionTLS11
	for what, creds := range map[string]credentials.TransportCredentials{
		"without a certificate":            credentials.NewTLS(config()),
		"with a certificate of another CA": credentials.NewTLS(config(keyPair(t, stranger.client))),
		"with a server's certificate":      credentials.NewTLS(config(keyPair(t, a.server))),
		"with TLS 1.1":                     credentials.NewTLS(old),
		"without TLS":                      insecure.NewCredentials(),
	} {
		if err := ask(creds); status.Code(err) != codes.Unavailable {
			t.Errorf("%s: %v", what, err)
		}
	}

	// The command line works over TCP too.
	flags := []string{"status", "--admin", address, "--admin-tls-cert", clientFile, "--admin-tls-key", clientKeyFile, "--admin-tls-ca", caFile}
	if r := command(t, program(t), flags...); r.code != 0 {
		t.Errorf("drawbridge status over TCP: %s", r)
	}
	if r := command(t, program(t), "status", "--admin", address, "--admin-tls-ca", caFile); r.code == 0 {
		t.Errorf("drawbridge status over TCP without a certificate: %s", r)
	}
}

func TestAdminOverTCPWithoutFilesDoesNotStart(t *testing.T) {
	t.Parallel()
	a := newAuthority(t)
	dir := t.TempDir()
	cert := writeFile(t, filepath.Join(dir, "cert.pem"), a.server.ChainPEM)
	key := writeFile(t, filepath.Join(dir, "key.pem"), a.server.KeyPEM)
	empty := writeFile(t, filepath.Join(dir, "empty.pem"), nil)
	for what, flags := range map[string][]string{
		"no file":             {},
		"no authority":        {"--admin-tls-cert", cert, "--admin-tls-key", key},
		"no certificate":      {"--admin-client-ca", cert},
		"an empty authority":  {"--admin-tls-cert", cert, "--admin-tls-key", key, "--admin-client-ca", empty},
		"a file that is gone": {"--admin-tls-cert", cert, "--admin-tls-key", key, "--admin-client-ca", filepath.Join(dir, "gone.pem")},
	} {
		data := filepath.Join(shortDir(t), "data")
		r := command(t, program(t), append([]string{"serve", "--data-dir", data, "--admin-tcp", "127.0.0.1:0"}, flags...)...)
		if r.code == 0 || !strings.Contains(r.stdout+r.stderr, "admin") {
			t.Errorf("%s: %s", what, r)
		}
		if _, err := os.Stat(filepath.Join(data, "admin.sock")); err == nil {
			t.Errorf("%s: an admin socket is left behind", what)
		}
	}
}
