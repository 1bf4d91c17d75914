package certs

import (
	"crypto"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/drawbridge-gateway/drawbridge/certs/keyfile"
	"github.com/drawbridge-gateway/drawbridge/certs/safetext"
)

// A Certificate is a leaf, its intermediates and its private key, for a server
// or a client to present.
type Certificate struct {
	chain       []*x509.Certificate // the leaf first, in order
	tls         tls.Certificate
	fingerprint string
	notes       []note // repairs and unusual properties

	uses [2]useReport // indexed by Use; computed when first needed
}

// A CertificateSource holds the input of NewCertificate: either a Chain with
// its Key, each in PEM or DER, or a PKCS12 archive with both.
type CertificateSource struct {
	Chain, Key []byte

	// KeyInChain allows Chain to contain more than the chain: a private key in
	// PEM, which is used if Key is empty and ignored otherwise. Key may then
	// contain certificates, which are ignored. With an empty Key, Chain may also
	// be a PKCS#12 archive. Set it for files only: the API shows other texts
	// again, so they must not contain a key.
	KeyInChain bool

	PKCS12 []byte

	// Passphrase decrypts the key or the archive. Nil means no passphrase.
	Passphrase []byte
}

// NewCertificate parses and checks a certificate. The error is Faults, with
// the fields certificate_chain, private_key, passphrase and pkcs12. A bad key
// in Chain, or a Chain that is a bad archive, is a fault of certificate_chain.
// A fault reveals only the kind of a key or passphrase, never its content.
//
// A key may be PKCS#8, PKCS#1 or SEC1, of type RSA, ECDSA or Ed25519. It may
// be encrypted with PBES2 or, in PEM, with OpenSSL's legacy format. Decrypting
// a hostile file takes bounded time and memory.
//
// The key must belong to the leaf. The leaf is the certificate that matches the
// key, wherever it is in the chain. Intermediates are sorted and unrelated
// certificates are dropped, each with a warning in Info, because peers differ
// in what they tolerate. An expired certificate is accepted with a warning,
// because the operator may have no other.
func NewCertificate(src CertificateSource) (*Certificate, error) {
	var bad Faults
	if len(src.Passphrase) > keyfile.MaxPassphrase {
		bad.add("passphrase", "is too long: at most %d bytes are read", keyfile.MaxPassphrase)
		return nil, bad
	}
	m := src.parse(&bad)
	if len(bad) > 0 {
		for i, f := range bad {
			if f.Field == "passphrase" {
				bad[i].Problem += keyfile.ExplainMark(src.Passphrase)
			}
		}
		return nil, bad
	}
	return newCertificate(m, len(src.Passphrase) > 0)
}

// ParseCertificate is NewCertificate for a chain and an unencrypted private
// key.
func ParseCertificate(chain, key []byte) (*Certificate, error) {
	return NewCertificate(CertificateSource{Chain: chain, Key: key})
}

// A material is the parsed content of a source, before the chain is built.
type material struct {
	certs    []*x509.Certificate // at least one, in any order
	key      crypto.Signer
	keyField string // the field that contained the key
	// encrypted reports that the passphrase was used.
	encrypted bool
}

func (s *CertificateSource) parse(bad *Faults) material {
	switch {
	case len(s.PKCS12) > 0 && (len(s.Chain) > 0 || len(s.Key) > 0):
		bad.add("pkcs12", "cannot be combined with a chain or a key: set either the archive, or chain and key")
		return material{}
	case len(s.PKCS12) > 0:
		return parseArchive(s.PKCS12, s.Passphrase, "pkcs12", bad)
	case s.KeyInChain && len(s.Key) == 0:
		return s.parseFile(bad)
	}
	m := material{keyField: "private_key"}
	var err error
	if m.certs, err = keyfile.ParseChain(s.Chain, keyfile.MaxChain, s.KeyInChain); err != nil {
		bad.add("certificate_chain", "%v", err)
	}
	m.key, m.encrypted, err = keyfile.ParseKey(s.Key, s.Passphrase, s.KeyInChain)
	bad.addSecret(m.keyField, err)
	return m
}

// parseFile takes the key and the chain from Chain.
func (s *CertificateSource) parseFile(bad *Faults) material {
	m := material{keyField: "certificate_chain"}
	if keyfile.IsPKCS12(s.Chain) {
		return parseArchive(s.Chain, s.Passphrase, m.keyField, bad)
	}
	var err error
	if m.certs, err = keyfile.ParseChain(s.Chain, keyfile.MaxChain, true); err != nil {
		bad.add(m.keyField, "%v", err)
		return m
	}
	if keyfile.IsDER(s.Chain) {
		bad.add("private_key", "is missing: a chain in DER does not contain it")
		return m
	}
	m.key, m.encrypted, err = keyfile.ParseKey(s.Chain, s.Passphrase, true)
	if errors.Is(err, keyfile.ErrNoKey) {
		bad.add("private_key", "is missing: the chain does not contain it either")
		return m
	}
	bad.addSecret(m.keyField, err)
	return m
}

func parseArchive(data, passphrase []byte, field string, bad *Faults) material {
	m := material{keyField: field}
	var err error
	m.certs, m.key, m.encrypted, err = keyfile.ParsePKCS12(data, passphrase)
	bad.addSecret(field, err)
	return m
}

func newCertificate(m material, passphrase bool) (*Certificate, error) {
	certs, key := m.certs, m.key
	leaf := slices.IndexFunc(certs, func(c *x509.Certificate) bool { return keyfile.IsKeyOf(c, key) })
	if leaf < 0 {
		problem := "is not the key of the certificate " + describeName(certs[0])
		if want, have := keyfile.CertificateKeyType(certs[0]), keyfile.KeyType(key.Public()); want != have {
			problem += fmt.Sprintf(" (its key is %s, this one is %s)", want, have)
		}
		if m.keyField != "private_key" {
			problem = "holds a private key that " + problem
		}
		return nil, Faults{{m.keyField, problem}}
	}
	chain, notes := orderChain(certs, leaf)
	if passphrase && !m.encrypted {
		notes = append(notes, note{FindingUnneededPassphrase, "a passphrase is given, but the private key is not encrypted, so anyone who can read it can use it"})
	}
	c := &Certificate{chain: chain, notes: notes, fingerprint: FingerprintOf(chain[0])}
	c.tls = tls.Certificate{PrivateKey: key, Leaf: chain[0]}
	for _, x := range chain {
		c.tls.Certificate = append(c.tls.Certificate, x.Raw)
	}
	return c, nil
}

// addSecret adds an error about a key at field, or at passphrase if the
// passphrase is at fault. A nil error adds nothing.
func (f *Faults) addSecret(field string, err error) {
	var wrong keyfile.PassphraseError
	if errors.As(err, &wrong) {
		f.add("passphrase", "%v", err)
	} else if err != nil {
		f.add(field, "%v", err)
	}
}

// Info describes the leaf and warns about likely problems.
func (c *Certificate) Info() Info {
	info := Describe(c.chain)
	if c.chain[0].IsCA {
		info.warn(FindingCAAsLeaf, "it is a CA certificate, which does not belong in a handshake: some peers reject it")
	}
	for _, n := range c.notes {
		info.warn(n.finding, "%s", n.text)
	}
	return info
}

// Leaf returns the leaf. It must not be modified.
func (c *Certificate) Leaf() *x509.Certificate { return c.chain[0] }

// Chain returns the presented certificates, leaf first. They must not be
// modified.
func (c *Certificate) Chain() []*x509.Certificate { return c.chain }

// Fingerprint returns the leaf's fingerprint: see FingerprintOf.
func (c *Certificate) Fingerprint() string { return c.fingerprint }

// Matches reports whether the leaf is valid for host, a DNS name or an IP
// address. DNS names may match a wildcard (RFC 6125). The validity period is
// not checked.
func (c *Certificate) Matches(host string) bool {
	return c.chain[0].VerifyHostname(host) == nil
}

// FingerprintOf returns the SHA-256 of a certificate's DER encoding in lower-case
// hexadecimal.
func FingerprintOf(c *x509.Certificate) string {
	sum := sha256.Sum256(c.Raw)
	return hex.EncodeToString(sum[:])
}

// ParseFingerprint returns the SHA-256 fingerprint that text stands for, in the form of
// FingerprintOf. text is 64 hexadecimal digits in either case, with or without colons, as
// openssl writes them. ok is false for any other text.
func ParseFingerprint(text string) (fingerprint string, ok bool) {
	sum, err := hex.DecodeString(strings.ReplaceAll(text, ":", ""))
	return hex.EncodeToString(sum), err == nil && len(sum) == sha256.Size
}

// orderChain returns the chain that starts with certs[leaf], each certificate
// followed by its issuer (RFC 5246, section 7.4.2), and a note for each
// difference from certs.
func orderChain(certs []*x509.Certificate, leaf int) (chain []*x509.Certificate, notes []note) {
	used := make([]bool, len(certs))
	chain, used[leaf] = append(chain, certs[leaf]), true
	sorted, at := true, leaf
	last := certs[leaf]
	for !isSelfSigned(last) {
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
		sorted, at = sorted && next > at, next
		last, used[next] = certs[next], true
		chain = append(chain, last)
	}
	if !sorted || slices.Contains(used[:leaf], true) {
		notes = append(notes, note{FindingOrderCorrected, "the chain was not in order; it is sent leaf first, each certificate followed by its issuer"})
	}
	left := false
	for i, c := range certs {
		switch {
		case used[i]:
		case slices.ContainsFunc(chain, c.Equal):
			notes = append(notes, note{FindingDuplicate, "the chain holds " + describeName(c) + " twice; it is sent once"})
		default:
			notes = append(notes, note{FindingUnrelated, "the chain holds " + describeName(c) + ", which does not belong to it; it is not sent"})
			left = left || c.IsCA
		}
	}
	if isSelfIssued(last) {
		return chain, notes
	}
	if left || lacksIntermediate(last, len(chain) == 1) {
		notes = append(notes, note{FindingMissingIntermediate, fmt.Sprintf("the chain ends with %s; the certificate of its issuer %q is missing, and peers that do not have it refuse the chain",
			describeName(last), safetext.Printable(nameText(last.RawIssuer, last.Issuer), 150))})
	}
	return chain, notes
}

// issued reports whether child's signature was made by parent.
func issued(parent, child *x509.Certificate) bool {
	return string(parent.RawSubject) == string(child.RawIssuer) && child.CheckSignatureFrom(parent) == nil
}

// isSelfIssued reports whether a certificate names itself as its issuer.
func isSelfIssued(c *x509.Certificate) bool { return string(c.RawSubject) == string(c.RawIssuer) }
