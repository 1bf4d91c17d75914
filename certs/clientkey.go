package certs

import (
	"crypto/tls"
	"fmt"
	"slices"
	"strings"

	"github.com/drawbridge-gateway/drawbridge/certs/keyfile"
)

// A KeyTypeError reports that the server cannot verify signatures made with our
// client certificate's key. The handshake ends before we send a certificate.
type KeyTypeError struct {
	// Ours is the key type of our certificate, as in Info.
	Ours string
	// Accepted are the key types that the server named; ECDSA without a curve
	// means any curve. It may be empty.
	Accepted []string
}

// Error names our key type and the types that the server accepts.
func (e *KeyTypeError) Error() string {
	accepted := "keys that are not supported"
	if len(e.Accepted) > 0 {
		accepted = "keys of the types " + strings.Join(e.Accepted, ", ")
		if len(e.Accepted) == 1 {
			accepted = e.Accepted[0] + " keys"
		}
	}
	return fmt.Sprintf("the server accepts only client certificates with %s, and ours has a key of the type %s", accepted, e.Ours)
}

// checkKeyType returns a *KeyTypeError if, according to the server's request, the
// server cannot verify signatures made with the certificate's key. Without this check, the
// error of crypto/tls would suggest that the server had rejected the
// certificate.
func checkKeyType(info *tls.CertificateRequestInfo, c *Certificate) error {
	if keyFits(info, c) {
		return nil
	}
	return &KeyTypeError{Ours: keyfile.CertificateKeyType(c.Leaf()), Accepted: acceptedKeys(info)}
}

func keyFits(info *tls.CertificateRequestInfo, c *Certificate) bool {
	anyCA := *info
	anyCA.AcceptableCAs = nil // SupportsCertificate would check the issuer
	// Before TLS 1.2, servers do not name signature schemes, and crypto/tls fills
	// in its own.
	return info.Version < tls.VersionTLS12 || anyCA.SupportsCertificate(&c.tls) == nil
}

// acceptedKeys returns the key types of the signature schemes in a request,
// without duplicates.
func acceptedKeys(info *tls.CertificateRequestInfo) []string {
	var types []string
	for _, s := range info.SignatureSchemes {
		if t := schemeKey(s, info.Version); t != "" && !slices.Contains(types, t) {
			types = append(types, t)
		}
	}
	return types
}

// schemeKey returns the key type of a signature scheme (RFC 8446, section
// 4.2.3), or "" if the version cannot use the scheme.
func schemeKey(s tls.SignatureScheme, version uint16) string {
	curve := ""
	switch s {
	case tls.PKCS1WithSHA1, tls.PKCS1WithSHA256, tls.PKCS1WithSHA384, tls.PKCS1WithSHA512:
		if version >= tls.VersionTLS13 {
			return "" // only for signatures in certificates
		}
		return "RSA"
	case tls.PSSWithSHA256, tls.PSSWithSHA384, tls.PSSWithSHA512:
		return "RSA"
	case tls.Ed25519:
		return "Ed25519"
	case 0x0808:
		return "Ed448"
	case 0x0809, 0x080a, 0x080b:
		return "RSA-PSS"
	case tls.ECDSAWithP256AndSHA256:
		curve = " P-256"
	case tls.ECDSAWithP384AndSHA384:
		curve = " P-384"
	case tls.ECDSAWithP521AndSHA512:
		curve = " P-521"
	case tls.ECDSAWithSHA1:
		if version >= tls.VersionTLS13 {
			return ""
		}
	default:
		return ""
	}
	if version < tls.VersionTLS13 {
		return "ECDSA" // before TLS 1.3 a scheme did not determine the curve
	}
	return "ECDSA" + curve
}

// Fits reports whether a certificate meets the server's request: its key can
// make a signature that the server accepts, and if the server named CAs, one of
// them issued it. It is false if the server requested no certificate.
func (o *Observation) Fits(c *Certificate) bool {
	return o.certRequest != nil && o.certRequest.SupportsCertificate(&c.tls) == nil
}
