package keyfile

import (
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"

	"github.com/drawbridge-gateway/drawbridge/certs/safetext"
)

var (
	oidData       = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 7, 1}
	oidSignedData = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 7, 2}
)

// IsDER reports whether data is ASN.1 rather than text. It accepts a SEQUENCE
// with a length of more than one byte (everything except a small key), a
// SEQUENCE that begins with an INTEGER (keys), or one with exactly the length
// of data.
func IsDER(data []byte) bool {
	return len(data) > 2 && data[0] == 0x30 && (data[1] >= 0x80 || data[2] == asn1.TagInteger || int(data[1]) == len(data)-2)
}

// IsPKCS12 reports whether der begins like a PFX (RFC 7292).
func IsPKCS12(der []byte) bool {
	var version, next asn1.RawValue
	inner := derContent(der)
	rest, err := asn1.Unmarshal(inner, &version)
	if err != nil || version.Tag != asn1.TagInteger || len(version.Bytes) != 1 || version.Bytes[0] != 3 {
		return false
	}
	if len(rest) > 2 && rest[0] == 0x30 && rest[1] == 0x80 {
		return true // BER
	}
	if _, err := asn1.Unmarshal(rest, &next); err != nil || next.Tag != asn1.TagSequence {
		return false
	}
	var content asn1.ObjectIdentifier
	_, err = asn1.Unmarshal(next.Bytes, &content)
	return err == nil && (content.Equal(oidData) || content.Equal(oidSignedData))
}

// isPKCS7 reports whether der is a ContentInfo (RFC 5652).
func isPKCS7(der []byte) bool {
	var content asn1.ObjectIdentifier
	_, err := asn1.Unmarshal(derContent(der), &content)
	return err == nil && content.Equal(oidSignedData)
}

func isCertificate(der []byte) bool {
	_, err := x509.ParseCertificate(der)
	return err == nil
}

// derContent returns the start of the content of a SEQUENCE, in DER or in BER
// with indefinite length.
func derContent(der []byte) []byte {
	if len(der) > 2 && der[0] == 0x30 && der[1] == 0x80 {
		return der[2:]
	}
	var outer asn1.RawValue
	if _, err := asn1.Unmarshal(der, &outer); err != nil || outer.Tag != asn1.TagSequence || !outer.IsCompound {
		return nil
	}
	return outer.Bytes
}

// parseCertificatesDER reads certificates in DER, one after the other.
func parseCertificatesDER(data []byte, limit int) ([]*x509.Certificate, error) {
	switch {
	case IsPKCS12(data):
		return nil, errors.New("is a PKCS#12 archive: want certificates in PEM or DER; `openssl pkcs12 -nokeys` extracts the certificates")
	case isPKCS7(data):
		return nil, errors.New("is PKCS#7: `openssl pkcs7 -inform DER -print_certs` extracts the certificates")
	}
	if _, err := parsePlainKey(data); err == nil || parseEncryptedKey(data) != nil {
		return nil, errKeyInChain
	}
	var certs []*x509.Certificate
	for rest := data; len(rest) > 0; {
		var one asn1.RawValue
		after, err := asn1.Unmarshal(rest, &one)
		if err != nil {
			return nil, AfterEntries(len(certs), "certificate", errors.New("the data is neither PEM nor DER"))
		}
		if len(certs) == limit {
			return nil, fmt.Errorf("holds more than %d certificates", limit)
		}
		c, err := parseOne(one.FullBytes, len(certs)+1)
		if err != nil {
			return nil, err
		}
		certs, rest = append(certs, c), after
	}
	return certs, nil
}

// parseOne parses the certificate with the given number in a list.
func parseOne(der []byte, number int) (*x509.Certificate, error) {
	c, err := x509.ParseCertificate(der)
	if err != nil && hasExplicitCurve(certificateKeyInfo(der)) { // the error of crypto/x509 would not mention the curve
		return nil, fmt.Errorf("certificate %d has an ECDSA key with explicit curve parameters, which TLS forbids (RFC 5480): make the key with a named curve, and have the certificate issued again", number)
	}
	if err != nil {
		return nil, fmt.Errorf("certificate %d cannot be parsed: %s; have it issued again without this fault", number, safetext.Printable(err.Error(), 200))
	}
	if err := checkPublicKey(c); err != nil {
		return nil, fmt.Errorf("certificate %d %w", number, err)
	}
	return c, nil
}
