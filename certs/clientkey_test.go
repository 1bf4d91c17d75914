package certs_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/drawbridge-gateway/drawbridge/certs"
	"github.com/drawbridge-gateway/drawbridge/certs/certstest"
	"github.com/drawbridge-gateway/drawbridge/certs/pki"
)

// If a server accepts only RSA keys and the client certificate has an ECDSA
// key, the client ends the handshake before it sends a certificate.
func TestClientKeyThatTheServerDoesNotAccept(t *testing.T) {
	ca := certstest.NewCA(t)
	server, file := ca.Server(t, "upstream.test"), fileMaker(t)
	client := func(k pki.KeyType) *certs.Certificate {
		return certstest.Certificate(t, ca.Leaf(t, pki.LeafOptions{Usage: pki.Client, CommonName: "client", Key: k}))
	}
	p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	root := mint(t, caTemplate("root"), ecdsaKey(t), nil)
	onP384 := mint(t, serverTemplate(), p384, root)
	certP384, err := certs.ParseCertificate(onP384.pem(), pkcs8PEM(t, p384))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name, schemes string
		cert          *certs.Certificate
		want          []string // the accepted key types, under TLS 1.3 and 1.2
		old           []string
	}{
		{"an ECDSA key where RSA is required", "RSA-PSS+SHA256:RSA+SHA256", client(pki.ECDSAP256), []string{"RSA"}, []string{"RSA"}},
		{"an RSA key where ECDSA is required", "ECDSA+SHA256:ECDSA+SHA384", client(pki.RSA2048), []string{"ECDSA P-256", "ECDSA P-384"}, []string{"ECDSA"}},
		{"an Ed25519 key where RSA is required", "RSA-PSS+SHA256", client(pki.Ed25519), []string{"RSA"}, []string{"RSA"}},
		{"a P-384 key where P-256 is required", "ECDSA+SHA256", certP384, []string{"ECDSA P-256"}, nil}, // in TLS 1.2 a scheme does not determine the curve
	} {
		for _, version := range []string{"-tls1_3", "-tls1_2"} {
			t.Run(c.name+version, func(t *testing.T) {
				want := c.want
				if version == "-tls1_2" {
					want = c.old
				}
				addr := sServer(t, version, "-rev", "-cert", file("cert.pem", server.ChainPEM), "-key", file("key.pem", server.KeyPEM),
					"-CAfile", file("ca.pem", join(ca.TrustPEM(), root.pem())), "-Verify", "1", "-client_sigalgs", c.schemes)
				o := certs.ClientOptions{Certificate: c.cert, Trust: []*certs.TrustBundle{ca.Trust(t)}, ServerName: "upstream.test"}
				seen, err := observe(t, newClient(t, o), addr, "")
				if want == nil {
					if err != nil {
						t.Fatal(err)
					}
					return
				}
				wantReason(t, err, certs.ReasonLocalConfig)
				e, ok := errors.AsType[*certs.KeyTypeError](err)
				if !ok || e.Ours != c.cert.Info().KeyType || !slices.Equal(e.Accepted, want) {
					t.Fatalf("error %v, accepted %q", err, e.Accepted)
				}
				if !strings.Contains(err.Error(), want[0]) || !strings.Contains(err.Error(), e.Ours) {
					t.Errorf("error %q", err)
				}
				if seen.Sent || !seen.Requested || seen.Fits(c.cert) {
					t.Error("the certificate was sent, or is reported as accepted")
				}
				if fits := client(pki.RSA2048); seen.Fits(fits) != (want[0] == "RSA") {
					t.Errorf("an RSA certificate fits: %v", seen.Fits(fits))
				}
			})
		}
	}
}

// A client supports no signature algorithm of a listener's keys.
func TestServerKeyThatTheClientDoesNotSupport(t *testing.T) {
	ca := certstest.NewCA(t)
	cert := certstest.Certificate(t, ca.Leaf(t, pki.LeafOptions{Usage: pki.Server, DNSNames: []string{"a.test"}, Key: pki.Ed25519}))
	s := serve(t, newServer(t, certs.ServerOptions{Certificates: []*certs.Certificate{cert}}).Conn)
	path, err := exec.LookPath("openssl")
	if err != nil {
		t.Skip("openssl is not installed")
	}
	// The client fails, as expected.
	exec.CommandContext(t.Context(), path, "s_client", "-connect", s.addr, "-servername", "a.test", "-tls1_3", "-sigalgs", "RSA-PSS+SHA256").Run()
	shaken := <-s.handshakes
	if got := certs.ClassifyAccept(shaken.err); got != certs.ReasonNoCommonSignature {
		t.Errorf("reason %q: %v", got, shaken.err)
	}
}

func pkcs8PEM(t testing.TB, key any) []byte {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return block("PRIVATE KEY", der)
}
