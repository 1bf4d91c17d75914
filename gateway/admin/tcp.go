package admin

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"time"
)

// TCPOptions configure ListenTCP. All fields are required.
type TCPOptions struct {
	Address      string // "127.0.0.1:9443"
	CertFile     string // the server's certificate chain in PEM
	KeyFile      string // its private key in PEM
	ClientCAFile string // CA certificates in PEM that callers' certificates must lead to
}

// ListenTCP listens for TLS (1.2 or later) whose clients present a certificate
// that leads to one of the CAs. The files are read once. An error names every
// file that is missing or does not hold what it should.
func ListenTCP(o TCPOptions) (net.Listener, error) {
	cert, certErr := loadKeyPair(o.CertFile, o.KeyFile)
	clients, clientErr := loadClientCAs(o.ClientCAFile, time.Now())
	if err := errors.Join(certErr, clientErr); err != nil {
		return nil, fmt.Errorf("admin address %s: %w", o.Address, err)
	}
	lis, err := net.Listen("tcp", o.Address)
	if err != nil {
		return nil, fmt.Errorf("admin address %s: %w", o.Address, err)
	}
	return tls.NewListener(lis, &tls.Config{
		Certificates: []tls.Certificate{cert},
		ClientAuth:   tls.RequireAndVerifyClientCert,
		ClientCAs:    clients,
		MinVersion:   tls.VersionTLS12,
		NextProtos:   []string{"h2"},
		// Every connection presents its certificate anew.
		SessionTicketsDisabled: true,
	}), nil
}

// loadKeyPair reads a certificate chain and its key. Its errors say what is
// wrong in words of our own, because crypto/tls's quote PEM headers.
func loadKeyPair(certFile, keyFile string) (tls.Certificate, error) {
	chain, certErr := readFile("certificate", certFile)
	key, keyErr := readFile("key", keyFile)
	if err := errors.Join(certErr, keyErr); err != nil {
		return tls.Certificate{}, err
	}
	if _, err := parseCertificates(chain); err != nil {
		certErr = fmt.Errorf("certificate file %s: %w", certFile, err)
	}
	if err := checkKey(key); err != nil {
		keyErr = fmt.Errorf("key file %s: %w", keyFile, err)
	}
	if err := errors.Join(certErr, keyErr); err != nil {
		return tls.Certificate{}, err
	}
	pair, err := tls.X509KeyPair(chain, key)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("key file %s: not the key of the certificate in %s: %s", keyFile, certFile, tell(err.Error(), maxFault))
	}
	return pair, nil
}

// loadClientCAs reads the CAs that callers must lead to. Anything in the file
// that is not one is an error: a bundle that is half read would shut out
// callers, or let them in, by surprise.
func loadClientCAs(file string, now time.Time) (*x509.CertPool, error) {
	text, err := readFile("client CA", file)
	if err != nil {
		return nil, err
	}
	certs, err := parseCertificates(text)
	if err != nil {
		return nil, fmt.Errorf("client CA file %s: %w", file, err)
	}
	pool, valid := x509.NewCertPool(), false
	for i, c := range certs {
		if !c.BasicConstraintsValid || !c.IsCA {
			return nil, fmt.Errorf("client CA file %s: certificate %d is not a CA's", file, i+1)
		}
		valid = valid || now.Before(c.NotAfter)
		pool.AddCert(c)
	}
	if !valid {
		return nil, fmt.Errorf("client CA file %s: every certificate in it has expired", file)
	}
	return pool, nil
}

func readFile(what, file string) ([]byte, error) {
	if file == "" {
		return nil, fmt.Errorf("a %s file is needed: the admin API is served over TCP only with TLS and client certificates", what)
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("%s file: %w", what, err)
	}
	return text, nil
}

// parseCertificates parses a file of nothing but certificates; text around
// the PEM blocks is comment.
func parseCertificates(text []byte) ([]*x509.Certificate, error) {
	var certs []*x509.Certificate
	blocks := bytes.Count(text, []byte("-----BEGIN"))
	for {
		var block *pem.Block
		block, text = pem.Decode(text)
		if block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			return nil, errors.New("it must hold nothing but certificates in PEM")
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("certificate %d: %s", len(certs)+1, tell(err.Error(), maxFault))
		}
		certs = append(certs, c)
	}
	if len(certs) == 0 {
		return nil, errors.New("it holds no certificate in PEM")
	}
	if len(certs) != blocks {
		return nil, fmt.Errorf("%d of its %d PEM blocks are broken", blocks-len(certs), blocks) // pem.Decode skips them
	}
	return certs, nil
}

// checkKey says what is wrong with a file that holds no usable private key.
func checkKey(text []byte) error {
	for {
		var block *pem.Block
		block, text = pem.Decode(text)
		switch {
		case block == nil:
			return errors.New("it holds no private key in PEM")
		case strings.HasPrefix(block.Type, "ENCRYPTED") || strings.Contains(block.Headers["Proc-Type"], "ENCRYPTED"):
			return errors.New("its private key is encrypted: decrypt it first")
		case strings.HasSuffix(block.Type, "PRIVATE KEY"):
			return nil
		}
	}
}
