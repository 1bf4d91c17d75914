package keyfile

import (
	"bytes"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"

	"github.com/drawbridge-gateway/drawbridge/certs/safetext"
)

const (
	maxPEMBytes = 4 << 20
	// MaxChain is the maximum number of certificates in a chain.
	MaxChain = 16
	// MaxTrustedCAs is the maximum number of certificates in a trust bundle.
	MaxTrustedCAs  = 5000
	maxRSABits     = 16 << 10
	certificatePEM = "CERTIFICATE"
)

var errKeyInChain = errors.New("holds a private key: want only certificates; remove the key from this file")

// ParseCertificates reads certificates in DER, or PEM text with certificate
// blocks only. Text around the blocks is allowed (RFC 7468 section 2), as in
// the files of curl and `openssl x509 -text`. Text that looks like a damaged
// block is rejected, because ignoring it would silently drop a certificate.
func ParseCertificates(data []byte, limit int) ([]*x509.Certificate, error) {
	return ParseChain(data, limit, false)
}

// ParseChain is ParseCertificates. With others, it also ignores blocks that
// often accompany a chain and its key in one file.
func ParseChain(data []byte, limit int, others bool) ([]*x509.Certificate, error) {
	data, err := readable(data, "certificates in PEM or DER")
	if err != nil {
		return nil, err
	}
	if IsDER(data) {
		return parseCertificatesDER(data, limit)
	}
	var certs []*x509.Certificate
	keys := false
	for rest := data; ; {
		block, next, err := NextBlock(rest)
		if err != nil {
			return nil, AfterEntries(len(certs), "certificate", err)
		}
		if block == nil {
			break
		}
		rest = next
		if others && block.Type != certificatePEM && (isOther(block.Type) || isKeyPEM(block.Type) || block.Type == "EC PARAMETERS") {
			keys = keys || isKeyPEM(block.Type)
			continue
		}
		if strings.Contains(block.Type, "PRIVATE KEY") {
			// Do not quote the type: see ParseKey.
			return nil, errKeyInChain
		}
		if block.Type != certificatePEM {
			return nil, fmt.Errorf("holds a block of type %q: want only %q%s", safetext.Printable(block.Type, 60), certificatePEM, Advice(block.Type))
		}
		if len(certs) == limit {
			return nil, fmt.Errorf("holds more than %d certificates", limit)
		}
		c, err := parseOne(block.Bytes, len(certs)+1)
		if err != nil {
			return nil, err
		}
		certs = append(certs, c)
	}
	if len(certs) == 0 && !pemBegins(data) {
		return nil, errors.New("holds no PEM block: want text that begins with -----BEGIN CERTIFICATE-----")
	}
	if len(certs) == 0 && keys {
		return nil, errors.New("holds no certificate, only a private key: check that the two files are not swapped")
	}
	if len(certs) == 0 {
		return nil, errors.New("holds no certificate")
	}
	return certs, nil
}

// AfterEntries adds to an error how many entries of a list precede it.
func AfterEntries(n int, noun string, err error) error {
	if n == 0 {
		return err
	}
	return fmt.Errorf("after %s: %w", safetext.Count(n, noun), err)
}

// pemBegins reports whether there is a PEM block in text.
func pemBegins(text []byte) bool {
	block, _ := pem.Decode(text)
	return block != nil
}

// checkPublicKey rejects a key whose signatures are too expensive to verify.
func checkPublicKey(c *x509.Certificate) error {
	if k, ok := c.PublicKey.(*rsa.PublicKey); ok && k.N.BitLen() > maxRSABits {
		return fmt.Errorf("has an RSA key of %d bits: at most %d bits are supported", k.N.BitLen(), maxRSABits)
	}
	return nil
}

// readable returns data without a leading byte order mark, if it is neither
// empty nor too long. want names the expected content.
func readable(data []byte, want string) ([]byte, error) {
	data = bytes.TrimPrefix(data, []byte("\xef\xbb\xbf"))
	switch {
	case len(bytes.TrimSpace(data)) == 0:
		return nil, errors.New("is empty: want " + want)
	case len(data) > maxPEMBytes:
		return nil, fmt.Errorf("is %d bytes long: at most %d are read", len(data), maxPEMBytes)
	case isJKS(data):
		return nil, errJKS
	case isUTF16(data):
		return nil, errUTF16
	}
	return data, nil
}

// LooseCertificates returns the parsable certificates in text.
func LooseCertificates(text []byte) []*x509.Certificate {
	var certs []*x509.Certificate
	for rest := text; ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			return certs
		}
		if c, err := x509.ParseCertificate(block.Bytes); err == nil && block.Type == certificatePEM {
			certs = append(certs, c)
		}
	}
}

// NextBlock returns the first PEM block and the rest of the text after it, or a
// nil block for text without one. It returns an error if the text before the
// block is probably a damaged block.
func NextBlock(text []byte) (block *pem.Block, rest []byte, err error) {
	block, rest = pem.Decode(text)
	between := text
	if block != nil {
		between = beforeBlock(text[:len(text)-len(rest)], block.Type)
	}
	return block, rest, checkBetween(between)
}

// beforeBlock returns the part of consumed that precedes the block that
// pem.Decode found at its end.
func beforeBlock(consumed []byte, blockType string) []byte {
	i := bytes.LastIndex(consumed, []byte("-----BEGIN "+blockType+"-----"))
	return consumed[:max(i, 0)]
}

// Advice returns the fix for a block of an unexpected type.
func Advice(blockType string) string {
	switch {
	case blockType == "TRUSTED CERTIFICATE":
		return "; `openssl x509` converts it from OpenSSL's own form"
	case blockType == "PKCS7":
		return "; `openssl pkcs7 -print_certs` extracts the certificates"
	case blockType == "CERTIFICATE REQUEST" || blockType == "NEW CERTIFICATE REQUEST":
		return "; a CA must sign the request first"
	}
	return ""
}
