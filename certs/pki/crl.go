package pki

import (
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"math/big"
	"time"
)

// CRLLifetime is the default lifetime of a revocation list.
const CRLLifetime = 30 * 24 * time.Hour

// CRLOptions describes a revocation list. The zero value is an empty list.
type CRLOptions struct {
	// Revoked holds the serial numbers of the revoked certificates.
	Revoked []*big.Int
	// ThisUpdate is when the list was issued. Zero means five minutes ago.
	ThisUpdate time.Time
	// NextUpdate is when the next list is due. Zero means CRLLifetime from now.
	NextUpdate time.Time
}

// CRL signs a revocation list for certificates that ca issued itself, and
// returns it as PEM. Each list has a higher number than earlier lists, as RFC
// 5280 section 5.2.3 requires.
func (ca *CA) CRL(o CRLOptions) ([]byte, error) {
	if ca.key == nil {
		return nil, errors.New("the CA's private key is not available, so it cannot sign a revocation list")
	}
	now := time.Now()
	if o.ThisUpdate.IsZero() {
		o.ThisUpdate = now.Add(-backdate)
	}
	if o.NextUpdate.IsZero() {
		o.NextUpdate = now.Add(CRLLifetime)
	}
	template := &x509.RevocationList{
		Number:     big.NewInt(now.UnixNano()),
		ThisUpdate: o.ThisUpdate,
		NextUpdate: o.NextUpdate,
	}
	for _, serial := range o.Revoked {
		template.RevokedCertificateEntries = append(template.RevokedCertificateEntries,
			x509.RevocationListEntry{SerialNumber: serial, RevocationTime: o.ThisUpdate})
	}
	der, err := x509.CreateRevocationList(rand.Reader, template, ca.cert, ca.key)
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: der}), nil
}
