package pki

import (
	"crypto/tls"
	"crypto/x509"
)

// MutualTLS issues a certificate for the DNS name, and returns the settings of a server that
// presents it. The server requires TLS 1.2 or later, and a client certificate that chains
// to ca's root.
func (ca *CA) MutualTLS(name string) (*tls.Config, error) {
	issued, err := ca.Issue(LeafOptions{DNSNames: []string{name}, Usage: Server})
	if err != nil {
		return nil, err
	}
	pair, err := tls.X509KeyPair(issued.ChainPEM, issued.KeyPEM)
	if err != nil {
		return nil, err
	}
	clients := x509.NewCertPool()
	clients.AddCert(ca.Root().Certificate())
	return &tls.Config{
		Certificates: []tls.Certificate{pair},
		ClientAuth:   tls.RequireAndVerifyClientCert,
		ClientCAs:    clients,
		MinVersion:   tls.VersionTLS12,
	}, nil
}
