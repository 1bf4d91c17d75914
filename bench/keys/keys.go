// Package keys makes the PKI of a run: one CA, a backend that requires a
// client certificate, the proxies' client certificate, and the certificate of
// their TLS listeners. All keys are ECDSA P-256.
//
// The caller owns the directory for the key files, which proxies read, and
// removes it.
package keys

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"

	"github.com/drawbridge-gateway/drawbridge/certs/pki"
)

const (
	// BackendName is the DNS name in the backend's certificate.
	BackendName = "backend.bench.test"
	// ListenerName is the DNS name in the proxies' own certificate.
	ListenerName = "proxy.bench.test"
)

// A Pair holds the files of a certificate and its key.
type Pair struct {
	// Chain and Key are PEM files; Bundle is both in one.
	Chain, Key, Bundle string
}

// Keys is the PKI of one run. It is immutable.
type Keys struct {
	// CA is the file of the root that all parties trust.
	CA string
	// Backend is the backend's certificate, for a backend with a process of its own.
	Backend Pair
	// Client is the certificate that proxies present to the backend.
	Client Pair
	// Listener is the certificate that proxies present to clients.
	Listener Pair

	pool    *x509.CertPool
	backend tls.Certificate
}

// New makes a PKI in dir, which must exist.
func New(dir string) (*Keys, error) {
	ca, err := pki.NewRoot(pki.CAOptions{CommonName: "bench"})
	if err != nil {
		return nil, err
	}
	k := &Keys{CA: filepath.Join(dir, "ca.pem"), pool: x509.NewCertPool()}
	k.pool.AddCert(ca.Certificate())
	loopback := []net.IP{net.IPv4(127, 0, 0, 1)}
	var errs [4]error
	errs[0] = os.WriteFile(k.CA, ca.RootPEM(), 0o600)
	k.Backend, k.backend, errs[1] = issue(ca, dir, "backend", pki.LeafOptions{DNSNames: []string{BackendName}, IPs: loopback})
	k.Client, _, errs[2] = issue(ca, dir, "client", pki.LeafOptions{CommonName: "client", Usage: pki.Client})
	k.Listener, _, errs[3] = issue(ca, dir, "listener", pki.LeafOptions{DNSNames: []string{ListenerName}, IPs: loopback})
	return k, errors.Join(errs[:]...)
}

func issue(ca *pki.CA, dir, name string, o pki.LeafOptions) (Pair, tls.Certificate, error) {
	p := Pair{
		Chain:  filepath.Join(dir, name+".pem"),
		Key:    filepath.Join(dir, name+"-key.pem"),
		Bundle: filepath.Join(dir, name+"-bundle.pem"),
	}
	issued, err := ca.Issue(o)
	if err != nil {
		return p, tls.Certificate{}, fmt.Errorf("issue %s: %w", name, err)
	}
	for path, data := range map[string][]byte{
		p.Chain: issued.ChainPEM, p.Key: issued.KeyPEM,
		p.Bundle: slices.Concat(issued.ChainPEM, issued.KeyPEM),
	} {
		if err := os.WriteFile(path, data, 0o600); err != nil {
			return p, tls.Certificate{}, err
		}
	}
	cert, err := tls.X509KeyPair(issued.ChainPEM, issued.KeyPEM)
	return p, cert, err
}

// groups is a key exchange that every proxy supports, so that all do the same
// work: otherwise only some would use ML-KEM.
var groups = []tls.CurveID{tls.X25519}

// BackendTLS returns the settings of the backend, which requires a client
// certificate. protos are its ALPN protocols, possibly none of them.
func (k *Keys) BackendTLS(protos ...string) *tls.Config {
	return &tls.Config{
		Certificates:                []tls.Certificate{k.backend},
		ClientAuth:                  tls.RequireAndVerifyClientCert,
		ClientCAs:                   k.pool,
		CurvePreferences:            groups,
		NextProtos:                  protos,
		DynamicRecordSizingDisabled: true,
	}
}

// ClientTLS returns the settings of a client of a proxy's TLS listener.
func (k *Keys) ClientTLS(protos ...string) *tls.Config {
	return &tls.Config{
		RootCAs:                     k.pool,
		ServerName:                  ListenerName,
		CurvePreferences:            groups,
		NextProtos:                  protos,
		DynamicRecordSizingDisabled: true,
	}
}
