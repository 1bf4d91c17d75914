// Package certstest issues throwaway certificates for the tests of every
// package.
//
// The caller owns every CA and certificate. A failure to issue one fails the
// test.
package certstest

import (
	"crypto/tls"
	"crypto/x509"
	"net"
	"net/url"
	"testing"

	"github.com/drawbridge-gateway/drawbridge/certs"
	"github.com/drawbridge-gateway/drawbridge/certs/pki"
)

// A CA is a test CA.
type CA struct{ *pki.CA }

// NewCA makes a new root.
func NewCA(t testing.TB) *CA {
	t.Helper()
	ca, err := pki.NewRoot(pki.CAOptions{CommonName: "test root of " + shortName(t)})
	if err != nil {
		t.Fatal(err)
	}
	return &CA{ca}
}

// Intermediate makes a CA below ca.
func (ca *CA) Intermediate(t testing.TB) *CA {
	t.Helper()
	below, err := ca.NewIntermediate(pki.CAOptions{CommonName: "test intermediate of " + shortName(t)})
	if err != nil {
		t.Fatal(err)
	}
	return &CA{below}
}

// Server issues a certificate for a server. Each name is a DNS name, an IP
// address or a URI. Without names it is for 127.0.0.1, ::1 and localhost.
func (ca *CA) Server(t testing.TB, names ...string) *pki.Issued {
	t.Helper()
	if len(names) == 0 {
		names = []string{"localhost", "127.0.0.1", "::1"}
	}
	o := pki.LeafOptions{Usage: pki.Server}
	for _, name := range names {
		if ip := net.ParseIP(name); ip != nil {
			o.IPs = append(o.IPs, ip)
		} else if u, err := url.Parse(name); err == nil && u.Scheme != "" {
			o.URIs = append(o.URIs, name)
		} else {
			o.DNSNames = append(o.DNSNames, name)
		}
	}
	return ca.Leaf(t, o)
}

// Client issues a certificate for a client.
func (ca *CA) Client(t testing.TB, commonName string) *pki.Issued {
	t.Helper()
	return ca.Leaf(t, pki.LeafOptions{Usage: pki.Client, CommonName: commonName})
}

// Leaf issues a certificate with the options o.
func (ca *CA) Leaf(t testing.TB, o pki.LeafOptions) *pki.Issued {
	t.Helper()
	issued, err := ca.Issue(o)
	if err != nil {
		t.Fatal(err)
	}
	return issued
}

// CRL returns a current revocation list of ca with the given certificates.
func (ca *CA) CRL(t testing.TB, revoked ...*x509.Certificate) []byte {
	t.Helper()
	var o pki.CRLOptions
	for _, c := range revoked {
		o.Revoked = append(o.Revoked, c.SerialNumber)
	}
	text, err := ca.CA.CRL(o)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// TrustPEM returns the root, for peers to trust.
func (ca *CA) TrustPEM() []byte { return ca.RootPEM() }

// Trust returns the root as a trust bundle.
func (ca *CA) Trust(t testing.TB) *certs.TrustBundle {
	t.Helper()
	b, err := certs.ParseTrustBundle(ca.RootPEM())
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TrustCRLs returns the root and revocation lists as a trust bundle.
func (ca *CA) TrustCRLs(t testing.TB, crls ...[]byte) *certs.TrustBundle {
	t.Helper()
	s := certs.TrustSource{Field: "pem", Certificates: ca.RootPEM()}
	for _, text := range crls {
		s.CRLs = append(s.CRLs, certs.CRLSource{Field: "crls", Data: text})
	}
	b, err := certs.NewTrustBundle(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// Pool returns the root as an x509.CertPool.
func (ca *CA) Pool() *x509.CertPool {
	p := x509.NewCertPool()
	p.AddCert(ca.Root().Certificate())
	return p
}

// Certificate parses an issued certificate.
func Certificate(t testing.TB, issued *pki.Issued) *certs.Certificate {
	t.Helper()
	c, err := certs.ParseCertificate(issued.ChainPEM, issued.KeyPEM)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// TLS returns an issued certificate as a tls.Certificate.
func TLS(t testing.TB, issued *pki.Issued) tls.Certificate {
	t.Helper()
	c, err := tls.X509KeyPair(issued.ChainPEM, issued.KeyPEM)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// shortName returns the test's name, cut to the 64 characters that RFC 5280
// allows in a common name.
func shortName(t testing.TB) string {
	name := t.Name()
	return name[:min(len(name), 30)]
}
