package pki

import (
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strings"
	"time"
)

// Usage is the TLS role that a certificate is for.
type Usage int

// The zero Usage is Server.
const (
	Server Usage = iota
	Client
	Both
)

// String returns the name: server, client or both.
func (u Usage) String() string {
	switch u {
	case Server:
		return "server"
	case Client:
		return "client"
	case Both:
		return "both"
	}
	return fmt.Sprintf("Usage(%d)", int(u))
}

// LeafOptions describes a certificate to issue.
type LeafOptions struct {
	// CommonName is the subject's common name. Empty means the first DNS name or
	// IP address. Verifiers ignore it and use the names below.
	CommonName string
	// DNSNames, IPs and URIs are the subject alternative names. A server
	// certificate needs at least one. A DNS name may have "*" as its first label.
	DNSNames []string
	IPs      []net.IP
	URIs     []string
	// Usage is the TLS role that the certificate is for.
	Usage Usage
	// Key is the kind of key to make.
	Key KeyType
	// NotBefore is the start of validity. Zero means five minutes ago.
	NotBefore time.Time
	// NotAfter is the end of validity. Zero means LeafLifetime from now, or
	// the end of the issuer if that is earlier.
	NotAfter time.Time
}

// Issued is a new certificate with its private key.
type Issued struct {
	// ChainPEM is the leaf followed by its intermediates, without the root.
	ChainPEM []byte
	// KeyPEM is the private key as PKCS#8.
	KeyPEM []byte
	// Leaf is the certificate itself. It must not be modified.
	Leaf *x509.Certificate
}

// Issue makes a new key and a certificate for it, signed by ca.
func (ca *CA) Issue(o LeafOptions) (*Issued, error) {
	template, err := leafTemplate(o)
	if err != nil {
		return nil, err
	}
	setValidity(template, o.NotBefore, o.NotAfter, LeafLifetime, ca)
	key, err := o.Key.generate()
	if err != nil {
		return nil, err
	}
	if _, ok := key.(*rsa.PrivateKey); ok {
		// The TLS 1.2 RSA key exchange encrypts with the key (RFC 5246, section
		// 7.4.2), and peers that still use it check for this usage.
		template.KeyUsage |= x509.KeyUsageKeyEncipherment
	}
	leaf, err := sign(template, key, ca)
	if err != nil {
		return nil, err
	}
	keyPEM, err := encodeKey(key)
	if err != nil {
		return nil, err
	}
	chain := append([]*x509.Certificate{leaf}, ca.intermediates()...)
	return &Issued{ChainPEM: encodeCertificates(chain...), KeyPEM: keyPEM, Leaf: leaf}, nil
}

// leafTemplate checks the names and returns the part of the certificate that
// does not depend on its key or issuer.
func leafTemplate(o LeafOptions) (*x509.Certificate, error) {
	t := &x509.Certificate{
		BasicConstraintsValid: true, // CA:FALSE; Java and OpenSSL require it to be explicit
		KeyUsage:              x509.KeyUsageDigitalSignature,
		IPAddresses:           o.IPs,
	}
	switch o.Usage {
	case Server:
		t.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	case Client:
		t.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	case Both:
		t.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
	default:
		return nil, fmt.Errorf("unknown usage %v", o.Usage)
	}
	for _, name := range o.DNSNames {
		if err := checkDNSName(name); err != nil {
			return nil, err
		}
		t.DNSNames = append(t.DNSNames, strings.ToLower(name))
	}
	for _, ip := range o.IPs {
		if ip.To16() == nil {
			return nil, errors.New("an IP address must have 4 or 16 bytes")
		}
	}
	for _, text := range o.URIs {
		u, err := url.Parse(text)
		if err != nil || u.Scheme == "" || (u.Host == "" && u.Opaque == "" && u.Path == "") {
			return nil, fmt.Errorf("%q is not a URI: want, for example, spiffe://example.com/web", text)
		}
		t.URIs = append(t.URIs, u)
	}
	if o.Usage != Client && len(o.DNSNames)+len(o.IPs)+len(o.URIs) == 0 {
		return nil, errors.New("a certificate for a server needs a DNS name, an IP address or a URI")
	}
	switch {
	case o.CommonName != "":
		t.Subject = pkix.Name{CommonName: o.CommonName}
	case len(t.DNSNames) > 0 && len(t.DNSNames[0]) <= 64: // the limit ub-common-name of RFC 5280
		t.Subject = pkix.Name{CommonName: t.DNSNames[0]}
	case len(o.IPs) > 0:
		t.Subject = pkix.Name{CommonName: o.IPs[0].String()}
	case o.Usage == Client && len(o.URIs) == 0:
		return nil, errors.New("a certificate for a client needs a common name, a DNS name or a URI")
	}
	return t, nil
}

// checkDNSName rejects names that verifiers never match: Go, OpenSSL and Java
// agree on letters, digits, hyphens and underscores, and on "*" only as the
// whole first label.
func checkDNSName(name string) error {
	bad := func(fault string) error { return fmt.Errorf("%q is not a DNS name: %s", name, fault) }
	if net.ParseIP(name) != nil {
		return bad("it is an IP address: give it with the option for IP addresses")
	}
	if name == "" || len(name) > 253 {
		return bad("want 1 to 253 characters")
	}
	for i, label := range strings.Split(name, ".") {
		if label == "*" && i == 0 && strings.Contains(name, ".") {
			continue
		}
		if label == "" || len(label) > 63 {
			return bad("each label has 1 to 63 characters")
		}
		if label[0] == '-' || label[len(label)-1] == '-' {
			return bad("a label may not begin or end with a hyphen")
		}
		for _, r := range label {
			if !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '-' || r == '_') {
				return bad("labels consist of letters, digits and hyphens; write an international name in its xn-- form")
			}
		}
	}
	return nil
}
