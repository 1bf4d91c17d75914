package pki_test

import (
	"crypto/tls"
	"crypto/x509"
	"net"
	"testing"

	"github.com/drawbridge-gateway/drawbridge/certs/pki"
)

func TestMutualTLSAdmitsOnlyClientsOfTheRoot(t *testing.T) {
	ca, other := newRoot(t), newRoot(t)
	config, err := newIntermediate(t, ca).MutualTLS("web.test")
	if err != nil {
		t.Fatal(err)
	}
	l, err := tls.Listen("tcp", "127.0.0.1:0", config)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	roots := x509.NewCertPool()
	roots.AddCert(ca.Certificate())
	for name, c := range map[string]struct {
		issuer *pki.CA // nil: no certificate
		admits bool
	}{
		"a client of the root":           {ca, true},
		"a client of another root":       {other, false},
		"a client without a certificate": {nil, false},
	} {
		t.Run(name, func(t *testing.T) {
			client := &tls.Config{RootCAs: roots, ServerName: "web.test"}
			if c.issuer != nil {
				issued, err := c.issuer.Issue(pki.LeafOptions{CommonName: "client", Usage: pki.Client})
				if err != nil {
					t.Fatal(err)
				}
				pair, err := tls.X509KeyPair(issued.ChainPEM, issued.KeyPEM)
				if err != nil {
					t.Fatal(err)
				}
				client.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &pair, nil }
			}
			admitted := make(chan error, 1)
			go func() {
				var conn net.Conn
				conn, err := l.Accept()
				if err == nil {
					err = conn.(*tls.Conn).Handshake()
					conn.Close()
				}
				admitted <- err
			}()
			if conn, err := tls.Dial("tcp", l.Addr().String(), client); err == nil {
				defer conn.Close()
			}
			if err := <-admitted; (err == nil) != c.admits {
				t.Error(err)
			}
		})
	}
}
