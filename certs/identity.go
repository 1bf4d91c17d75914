package certs

import "crypto/x509"

// An Identity says whose a certificate is, in the words of Info.
type Identity struct {
	Subject     string // bounded and escaped
	Fingerprint string // SHA-256, in lower-case hexadecimal
}

// IdentityOf returns the identity of a certificate; the zero Identity if it is
// nil.
func IdentityOf(c *x509.Certificate) Identity {
	if c == nil {
		return Identity{}
	}
	return Identity{printable(nameText(c.RawSubject, c.Subject), maxText), fingerprint(c)}
}
