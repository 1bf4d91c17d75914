package certs_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"net"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/drawbridge-gateway/drawbridge/certs"
	"github.com/drawbridge-gateway/drawbridge/certs/certstest"
	"github.com/drawbridge-gateway/drawbridge/certs/pki"
)

// reasonAt observes a server and returns the reason of the failure, in the
// handshake or, under TLS 1.3, after it.
func reasonAt(t *testing.T, c *certs.Client, network, addr string) (certs.Reason, *certs.Observation, error) {
	t.Helper()
	raw := patientConn{dialRaw(t, network, addr)}
	defer raw.Close()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	seen, err := c.Observe(ctx, raw, "")
	if err == nil {
		err = seen.Alert
	}
	return certs.Classify(err), seen, err
}

// Each case changes one thing between openssl s_server and a compatible
// client.
func TestReasonsAgainstOpenSSL(t *testing.T) {
	ca, other := certstest.NewCA(t), certstest.NewCA(t)
	file := fileMaker(t)
	now := time.Now()
	server, expired, revoked := ca.Server(t, "upstream.test"), ca.Leaf(t, pki.LeafOptions{
		Usage: pki.Client, CommonName: "late", NotBefore: now.Add(-2 * time.Hour), NotAfter: now.Add(-time.Hour)}), ca.Client(t, "revoked")
	crl := ca.CRL(t, revoked.Leaf)
	common := []string{"-rev", "-cert", file("cert.pem", server.ChainPEM), "-key", file("key.pem", server.KeyPEM)}
	mutual := []string{"-Verify", "3", "-verify_return_error", "-CAfile", file("ca.pem", ca.TrustPEM())}
	mutualCRL := []string{"-Verify", "3", "-verify_return_error", "-crl_check", "-CAfile", file("ca-crl.pem", join(ca.TrustPEM(), crl))}
	of := func(issued *pki.Issued) func(*certs.ClientOptions) {
		return func(o *certs.ClientOptions) { o.Certificate = certstest.Certificate(t, issued) }
	}
	same := func(*certs.ClientOptions) {}
	for _, c := range []struct {
		name   string
		args   []string
		change func(*certs.ClientOptions)
		want   certs.Reason
		only   uint16
	}{
		{"nothing wrong", nil, same, "", 0},
		{"another name", nil, func(o *certs.ClientOptions) { o.ServerName = "other.test" }, certs.ReasonNameMismatch, 0},
		{"another CA", nil, func(o *certs.ClientOptions) { o.Trust = []*certs.TrustBundle{other.Trust(t)} }, certs.ReasonUnknownCA, 0},
		{"a revoked certificate", nil, func(o *certs.ClientOptions) {
			o.Trust = []*certs.TrustBundle{ca.TrustCRLs(t, ca.CRL(t, server.Leaf))}
		}, certs.ReasonRevoked, 0},
		{"no revocation list", nil, func(o *certs.ClientOptions) {
			o.Trust = []*certs.TrustBundle{ca.TrustCRLs(t, other.CRL(t))}
		}, certs.ReasonCRLExpired, 0},
		{"another key", nil, func(o *certs.ClientOptions) { o.Pins = [][32]byte{{1}} }, certs.ReasonPinMismatch, 0},
		{"a valid client certificate", mutual, of(ca.Client(t, "c")), "", 0},
		{"no client certificate", mutual, same, certs.ReasonClientCertificateRequired, 0},
		{"a client certificate of another CA", mutual, of(other.Client(t, "c")), certs.ReasonClientCertificateRejected, 0},
		{"a server certificate as a client certificate", mutual, of(ca.Server(t, "c.test")), certs.ReasonClientCertificateRejected, 0},
		{"an expired client certificate", mutual, of(expired), certs.ReasonClientCertificateRejected, 0},
		{"a client that is not revoked", mutualCRL, of(ca.Client(t, "c")), "", 0},
		{"a revoked client", mutualCRL, of(revoked), certs.ReasonClientCertificateRejected, 0},
		{"a server that is too old", []string{"-tls1_2"}, func(o *certs.ClientOptions) { o.MinVersion = tls.VersionTLS13 }, certs.ReasonProtocolVersion, tls.VersionTLS13},
		{"a server that is too new", []string{"-tls1_3"}, same, certs.ReasonProtocolVersion, tls.VersionTLS12},
		{"no cipher suite in common", []string{"-cipher", "ECDHE-ECDSA-AES128-GCM-SHA256"}, func(o *certs.ClientOptions) {
			o.CipherSuites = []uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384}
		}, certs.ReasonNoCommonCipher, tls.VersionTLS12},
		{"no group in common", []string{"-curves", "P-256"}, func(o *certs.ClientOptions) { o.Groups = []tls.CurveID{tls.X25519} }, certs.ReasonNoCommonGroup, 0},
		{"a name that the server does not know", []string{"-servername", "x.test", "-servername_fatal", "-cert2", file("cert2.pem", server.ChainPEM), "-key2", file("key2.pem", server.KeyPEM)},
			same, certs.ReasonUnrecognizedName, 0},
		{"no protocol in common", []string{"-alpn", "smtp"}, func(o *certs.ClientOptions) {
			o.NextProtos, o.RequireALPN = []string{"h2"}, true
		}, certs.ReasonALPNMismatch, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			bothVersions(t, func(t *testing.T, version uint16) {
				if c.only != 0 && c.only != version {
					t.Skip("this version does not negotiate it")
				}
				o := certs.ClientOptions{ServerName: "upstream.test", Trust: []*certs.TrustBundle{ca.Trust(t)}, MaxVersion: version}
				c.change(&o)
				addr := sServer(t, append(append([]string{}, common...), c.args...)...)
				got, seen, err := reasonAt(t, newClient(t, o), "tcp", addr)
				if got != c.want {
					t.Errorf("reason %q, want %q: %v", got, c.want, err)
				}
				if mutual := strings.Contains(strings.Join(c.args, " "), "-Verify"); seen.Requested != mutual || seen.Sent != (mutual && o.Certificate != nil) {
					t.Errorf("requested %v, sent %v", seen.Requested, seen.Sent)
				}
				if c.want == "" && !seen.TicketOffered {
					t.Error("no ticket")
				}
			})
		})
	}
}

// nginx runs nginx with one server until the test ends, and returns its socket.
func nginx(t *testing.T, directives string) string {
	t.Helper()
	path, err := exec.LookPath("nginx")
	if err != nil {
		path = "/usr/sbin/nginx"
	}
	if _, err := exec.LookPath(path); err != nil {
		t.Skip("nginx is not installed")
	}
	file := fileMaker(t)
	socket := filepath.Join(t.TempDir(), "s")
	dir := t.TempDir()
	config := file("nginx.conf", []byte(`daemon off; master_process off; pid `+dir+`/pid; error_log stderr warn;
events { worker_connections 64; }
http {
	access_log off; client_body_temp_path `+dir+`/b; proxy_temp_path `+dir+`/p; fastcgi_temp_path `+dir+`/f; uwsgi_temp_path `+dir+`/u; scgi_temp_path `+dir+`/s;
	server { listen unix:`+socket+` ssl; `+directives+` return 200 "ok"; }
}
`))
	var said bytes.Buffer
	cmd := exec.Command(path, "-p", dir, "-c", config, "-e", "stderr")
	cmd.Stderr = &said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() { defer close(ended); cmd.Wait() }()
	t.Cleanup(func() { cmd.Process.Kill(); <-ended })
	for deadline := time.Now().Add(time.Minute); ; {
		if conn, err := net.Dial("unix", socket); err == nil {
			conn.Close()
			return socket
		}
		select {
		case <-ended:
			t.Fatalf("nginx: %s", said.String())
		case <-time.After(5 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			t.Fatal("nginx does not listen")
		}
	}
}

func TestReasonsAgainstNginx(t *testing.T) {
	ca, other := certstest.NewCA(t), certstest.NewCA(t)
	file := fileMaker(t)
	server := ca.Server(t, "upstream.test")
	common := "ssl_certificate " + file("cert.pem", server.ChainPEM) + "; ssl_certificate_key " + file("key.pem", server.KeyPEM) + ";"
	same := func(*certs.ClientOptions) {}
	for _, c := range []struct {
		name, directives string
		change           func(*certs.ClientOptions)
		want             certs.Reason
		only             uint16
	}{
		{"nothing wrong", "", same, "", 0},
		{"another name", "", func(o *certs.ClientOptions) { o.VerifyName = "other.test" }, certs.ReasonNameMismatch, 0},
		{"another CA", "", func(o *certs.ClientOptions) { o.Trust = []*certs.TrustBundle{other.Trust(t)} }, certs.ReasonUnknownCA, 0},
		{"a revoked certificate", "", func(o *certs.ClientOptions) {
			o.Trust = []*certs.TrustBundle{ca.TrustCRLs(t, ca.CRL(t, server.Leaf))}
		}, certs.ReasonRevoked, 0},
		{"no SNI", "", func(o *certs.ClientOptions) { o.NoServerName = true }, "", 0},
		{"a handshake that is rejected", "ssl_reject_handshake on;", same, certs.ReasonUnrecognizedName, 0},
		{"a server that is too old", "ssl_protocols TLSv1.2;", func(o *certs.ClientOptions) { o.MinVersion = tls.VersionTLS13 }, certs.ReasonProtocolVersion, tls.VersionTLS13},
		{"a server that is too new", "ssl_protocols TLSv1.3;", same, certs.ReasonProtocolVersion, tls.VersionTLS12},
		{"no cipher suite in common", "ssl_protocols TLSv1.2 TLSv1.3; ssl_ciphers ECDHE-ECDSA-AES128-GCM-SHA256;", func(o *certs.ClientOptions) {
			o.CipherSuites = []uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384}
		}, certs.ReasonNoCommonCipher, tls.VersionTLS12},
		{"no group in common", "ssl_protocols TLSv1.2 TLSv1.3; ssl_ecdh_curve secp384r1;", func(o *certs.ClientOptions) { o.Groups = []tls.CurveID{tls.X25519} }, certs.ReasonNoCommonGroup, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			bothVersions(t, func(t *testing.T, version uint16) {
				if c.only != 0 && c.only != version {
					t.Skip("this version does not negotiate it")
				}
				o := certs.ClientOptions{ServerName: "upstream.test", Trust: []*certs.TrustBundle{ca.Trust(t)}, MaxVersion: version}
				c.change(&o)
				protocols := "ssl_protocols TLSv1.2 TLSv1.3;"
				if strings.Contains(c.directives, "ssl_protocols") {
					protocols = ""
				}
				got, seen, err := reasonAt(t, newClient(t, o), "unix", nginx(t, common+protocols+c.directives))
				if got != c.want {
					t.Errorf("reason %q, want %q: %v", got, c.want, err)
				}
				if c.want == "" && !seen.TicketOffered {
					t.Error("no ticket")
				}
			})
		})
	}
}

// nginx requests client certificates and rejects them over HTTP: the handshake
// succeeds, and Observe reports the request.
func TestNginxAsksForClientCertificates(t *testing.T) {
	ca := certstest.NewCA(t)
	file := fileMaker(t)
	server := ca.Server(t, "upstream.test")
	bothVersions(t, func(t *testing.T, version uint16) {
		socket := nginx(t, "ssl_certificate "+file("cert.pem", server.ChainPEM)+"; ssl_certificate_key "+file("key.pem", server.KeyPEM)+
			"; ssl_protocols TLSv1.2 TLSv1.3; ssl_verify_client on; ssl_client_certificate "+file("ca.pem", ca.TrustPEM())+";")
		c := newClient(t, certs.ClientOptions{ServerName: "upstream.test", Trust: []*certs.TrustBundle{ca.Trust(t)}, MaxVersion: version})
		got, seen, err := reasonAt(t, c, "unix", socket)
		if got != "" || !seen.Requested || seen.Sent || len(seen.AcceptableCAs) != 1 || seen.AcceptableCAs[0] != ca.Certificate().Subject.String() {
			t.Errorf("%v: requested %v, sent %v, CAs %q", err, seen.Requested, seen.Sent, seen.AcceptableCAs)
		}
	})
}
