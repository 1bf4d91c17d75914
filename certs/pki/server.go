package pki

import (
	"crypto/tls"
	"crypto/x509"
)

// MutualTLS returns the settings of a server with the DNS name: a certificate that ca issues
// to it, and a demand that each client presents a certificate of ca's root. Clients need TLS
// 1.2 or later.
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
