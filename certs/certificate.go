package certs

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
)

// A Certificate is a leaf, its intermediates and its private key: what a
// server presents to clients or a client to servers.
type Certificate struct {
	chain       []*x509.Certificate // the leaf first, in order
	tls         tls.Certificate
	fingerprint string
	notes       []string // what parsing mended or found odd
}

// ParseCertificate parses and checks a chain and its private key, both in PEM.
// The error is Faults, with the fields certificate_chain and private_key.
//
// The key must be that of the leaf. The leaf is the one certificate that the
// key fits, wherever it stands; intermediates in the wrong order are put right
// and certificates that do not belong to the chain are left out, each with a
// warning in Info, because peers differ in what they forgive. A certificate
// that has expired is accepted, with a warning: it is what the operator has.
func ParseCertificate(chainPEM, keyPEM []byte) (*Certificate, error) {
	var bad Faults
	certs, err := parseCertificates(chainPEM, maxChain)
	if err != nil {
		bad.add("certificate_chain", "%v", err)
	}
	key, err := parseKey(keyPEM)
	if err != nil {
		bad.add("private_key", "%v", err)
	}
	if len(bad) > 0 {
		return nil, bad
	}

	leaf := -1
	for i, c := range certs {
		if isKeyOf(c, key) {
			leaf = i
			break
		}
	}
	if leaf < 0 {
		bad.add("private_key", "is not the key of the certificate %s (its key is %s, this one is %s)",
			describeName(certs[0]), keyType(certs[0].PublicKey), keyType(key.Public()))
		return nil, bad
	}
	chain, notes := orderChain(certs, leaf)
	c := &Certificate{chain: chain, notes: notes, fingerprint: fingerprint(chain[0])}
	c.tls = tls.Certificate{PrivateKey: key, Leaf: chain[0]}
	for _, x := range chain {
		c.tls.Certificate = append(c.tls.Certificate, x.Raw)
	}
	return c, nil
}

// KeyMatches reports whether both parse and the key is that of the leaf.
func KeyMatches(chainPEM, keyPEM []byte) bool {
	_, err := ParseCertificate(chainPEM, keyPEM)
	return err == nil
}

// Info describes the leaf and warns of what is likely to surprise.
func (c *Certificate) Info() Info {
	info := Describe(c.chain)
	if c.chain[0].IsCA {
		info.Warnings = append(info.Warnings, "it is a CA's certificate, which has no business in a handshake: some peers refuse it")
	}
	info.Warnings = append(info.Warnings, c.notes...)
	return info
}

// Leaf returns the leaf. It must not be modified.
func (c *Certificate) Leaf() *x509.Certificate { return c.chain[0] }

// Fingerprint returns the SHA-256 of the leaf's DER encoding in lower-case
// hexadecimal.
func (c *Certificate) Fingerprint() string { return c.fingerprint }

// Matches reports whether the leaf is valid for host: a DNS name, matched with
// wildcards as RFC 6125 has it, or an IP address. Validity in time is not
// looked at.
func (c *Certificate) Matches(host string) bool {
	return c.chain[0].VerifyHostname(host) == nil
}

func fingerprint(c *x509.Certificate) string {
	sum := sha256.Sum256(c.Raw)
	return hex.EncodeToString(sum[:])
}

// orderChain returns the chain that starts with certs[leaf], each certificate
// followed by its issuer as RFC 5246 section 7.4.2 wants it, and a note of
// everything that was not so in certs.
func orderChain(certs []*x509.Certificate, leaf int) (chain []*x509.Certificate, notes []string) {
	used := make([]bool, len(certs))
	chain, used[leaf] = append(chain, certs[leaf]), true
	for last := certs[leaf]; !isSelfSigned(last); {
		next := -1
		for i, c := range certs {
			if !used[i] && issued(c, last) {
				next = i
				break
			}
		}
		if next < 0 {
			break
		}
		last, used[next] = certs[next], true
		chain = append(chain, last)
	}
	for i, c := range certs {
		if used[i] {
			continue
		}
		if c.Equal(certs[leaf]) {
			notes = append(notes, "the chain holds the leaf twice; it is sent once")
			continue
		}
		notes = append(notes, "the chain holds "+describeName(c)+", which does not belong to it; it is not sent")
	}
	sorted := true
	for i, c := range chain {
		sorted = sorted && c == certs[i]
	}
	if !sorted && len(notes) == 0 {
		notes = append(notes, "the chain was not in order; it is sent leaf first, each certificate followed by its issuer")
	}
	return chain, notes
}

// issued reports whether child's signature was made by parent.
func issued(parent, child *x509.Certificate) bool {
	return string(parent.RawSubject) == string(child.RawIssuer) && child.CheckSignatureFrom(parent) == nil
}

// isSelfIssued reports whether a certificate names itself as its issuer.
func isSelfIssued(c *x509.Certificate) bool { return string(c.RawSubject) == string(c.RawIssuer) }
