package pki

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"time"
)

// Default lifetimes. Validity starts slightly in the past, so that a peer
// whose clock is behind does not reject a new certificate.
const (
	RootLifetime         = 10 * 365 * 24 * time.Hour
	IntermediateLifetime = 5 * 365 * 24 * time.Hour
	LeafLifetime         = 365 * 24 * time.Hour

	backdate = 5 * time.Minute
)

// CAOptions describes a root or intermediate CA. The zero value is useful.
type CAOptions struct {
	// CommonName is the subject's common name. Empty means "Drawbridge root
	// CA" or "Drawbridge intermediate CA".
	CommonName string
	// Key is the kind of key to make.
	Key KeyType
	// NotBefore is the start of validity. Zero means five minutes ago.
	NotBefore time.Time
	// NotAfter is the end of validity. Zero means RootLifetime or
	// IntermediateLifetime from now; the default for an intermediate is never
	// later than its issuer's end.
	NotAfter time.Time
}

// A CA issues certificates. It is immutable and safe for concurrent use.
type CA struct {
	cert   *x509.Certificate
	key    crypto.Signer // nil for a root whose key is not on disk
	parent *CA           // nil for a root
}

// NewRoot makes a self-signed CA with a new key.
func NewRoot(o CAOptions) (*CA, error) {
	if o.CommonName == "" {
		o.CommonName = "Drawbridge root CA"
	}
	return newCA(o, nil, RootLifetime)
}

// NewIntermediate makes a CA with a new key and a certificate signed by ca. The
// chains that it issues include its own certificate and the certificates of the
// CAs between it and the root.
func (ca *CA) NewIntermediate(o CAOptions) (*CA, error) {
	if o.CommonName == "" {
		o.CommonName = "Drawbridge intermediate CA"
	}
	return newCA(o, ca, IntermediateLifetime)
}

func newCA(o CAOptions, parent *CA, lifetime time.Duration) (*CA, error) {
	key, err := o.Key.generate()
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		Subject:               pkix.Name{CommonName: o.CommonName},
		BasicConstraintsValid: true,
		IsCA:                  true,
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
	setValidity(template, o.NotBefore, o.NotAfter, lifetime, parent)
	cert, err := sign(template, key, parent)
	if err != nil {
		return nil, err
	}
	return &CA{cert: cert, key: key, parent: parent}, nil
}

// setValidity fills in the defaults. A default end is never later than the
// issuer's, because OpenSSL and Java reject the chain after that time. An
// explicit end is kept.
func setValidity(template *x509.Certificate, from, to time.Time, lifetime time.Duration, issuer *CA) {
	now := time.Now()
	if from.IsZero() {
		from = now.Add(-backdate)
	}
	if to.IsZero() {
		to = now.Add(lifetime)
		if issuer != nil && to.After(issuer.cert.NotAfter) {
			to = issuer.cert.NotAfter
		}
	}
	template.NotBefore, template.NotAfter = from.UTC(), to.UTC()
}

// sign adds a serial number and key identifiers to template, and signs it with
// issuer's key, or with key if issuer is nil.
func sign(template *x509.Certificate, key crypto.Signer, issuer *CA) (*x509.Certificate, error) {
	if !template.NotAfter.After(template.NotBefore) {
		return nil, errors.New("the certificate would expire before its validity starts")
	}
	serial, err := newSerial()
	if err != nil {
		return nil, err
	}
	template.SerialNumber = serial
	if template.SubjectKeyId, err = keyID(key.Public()); err != nil {
		return nil, err
	}
	parent, signer := template, key
	if issuer != nil {
		if issuer.key == nil {
			return nil, fmt.Errorf("the private key of %q is not available", issuer.cert.Subject.CommonName)
		}
		parent, signer = issuer.cert, issuer.key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), signer)
	if err != nil {
		return nil, err
	}
	return x509.ParseCertificate(der)
}

// newSerial returns a random serial number of 128 bits: unique without a
// counter file, and within the 20 octets of RFC 5280, section 4.1.2.2.
func newSerial() (*big.Int, error) {
	var b [16]byte
	for {
		if _, err := rand.Read(b[:]); err != nil {
			return nil, err
		}
		if n := new(big.Int).SetBytes(b[:]); n.Sign() > 0 {
			return n, nil
		}
	}
}

// keyID returns the first 160 bits of the SHA-256 of the public key (RFC 7093,
// section 2, method 1).
func keyID(public crypto.PublicKey) ([]byte, error) {
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		return nil, err
	}
	var info struct {
		Algorithm pkix.AlgorithmIdentifier
		Key       asn1.BitString
	}
	if _, err := asn1.Unmarshal(der, &info); err != nil {
		return nil, err
	}
	sum := sha256.Sum256(info.Key.Bytes)
	return sum[:20], nil
}

// Certificate returns the CA's own certificate. It must not be modified.
func (ca *CA) Certificate() *x509.Certificate { return ca.cert }

// Root returns the root above ca; a root returns itself.
func (ca *CA) Root() *CA {
	for ca.parent != nil {
		ca = ca.parent
	}
	return ca
}

// CertPEM returns the CA's own certificate.
func (ca *CA) CertPEM() []byte { return encodeCertificates(ca.cert) }

// RootPEM returns the certificate of the root, for peers to trust.
func (ca *CA) RootPEM() []byte { return ca.Root().CertPEM() }

// intermediates returns the certificates from ca up to, but excluding, the
// root.
func (ca *CA) intermediates() []*x509.Certificate {
	var chain []*x509.Certificate
	for ; ca.parent != nil; ca = ca.parent {
		chain = append(chain, ca.cert)
	}
	return chain
}

func encodeCertificates(certs ...*x509.Certificate) []byte {
	var b bytes.Buffer
	for _, c := range certs {
		b.Write(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw}))
	}
	return b.Bytes()
}
