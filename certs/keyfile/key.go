package keyfile

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"

	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"
)

const (
	// maxKeyBytes bounds the DER of one private key: an 8192-bit RSA key has under
	// 5 KiB. The time to check a key grows with the cube of its size.
	maxKeyBytes = 8 << 10
	// MaxPassphrase is the maximum length of a passphrase in bytes.
	MaxPassphrase = 4 << 10
)

// ErrNoKey reports that a file holds no private key.
var ErrNoKey = errors.New("holds no private key in PEM, as `openssl genpkey` writes it")

var (
	errDamagedKey = errors.New("cannot be parsed: the key is damaged or of a kind that is not supported; want ECDSA, RSA or Ed25519")
	errKeyKind    = errors.New("is of a kind that TLS does not support: want ECDSA, RSA or Ed25519")
)

// A PassphraseError is a fault of the passphrase rather than of the encrypted
// key or archive.
type PassphraseError string

func (e PassphraseError) Error() string { return string(e) }

// ParseKey reads the one private key in data: PKCS#8, PKCS#1 or SEC1, in PEM or
// DER, encrypted or not. It reports whether the key was encrypted. With others,
// it ignores blocks of certificates and parameters. Its errors never quote the
// data or a decoder's error, and never contain the PEM type of a key: answers
// and logs omit text that contains it.
func ParseKey(data, passphrase []byte, others bool) (key crypto.Signer, encrypted bool, err error) {
	data, err = readable(data, "a private key in PEM or DER")
	if err != nil {
		return nil, false, err
	}
	if IsDER(data) {
		return parseKeyDER(data, passphrase)
	}
	for rest := data; ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		switch {
		case block.Type == "EC PARAMETERS": // openssl ecparam -genkey writes this block before the key
			continue
		case others && isOther(block.Type):
			continue
		case block.Type == certificatePEM:
			return nil, false, errors.New("holds a certificate: want only the private key")
		case strings.Contains(block.Type, "PUBLIC KEY"):
			return nil, false, errors.New("holds a public key: want the private key")
		case !isKeyPEM(block.Type):
			return nil, false, errors.New("holds a PEM block that is not a private key: want one of PKCS#8, PKCS#1 or SEC1")
		case key != nil:
			return nil, false, errors.New("holds more than one private key")
		}
		if key, encrypted, err = parseKeyBlock(block, passphrase); err != nil {
			return nil, false, err
		}
	}
	if key == nil {
		if err := misformed(data); err != nil {
			return nil, false, err
		}
		return nil, false, ErrNoKey
	}
	return key, encrypted, nil
}

// isKeyPEM reports whether blocks of this type hold a private key of any kind.
func isKeyPEM(blockType string) bool { return strings.HasSuffix(blockType, "PRIVATE KEY") }

// isOther reports whether blocks of this type often accompany a key.
func isOther(blockType string) bool {
	return blockType == certificatePEM || blockType == "DH PARAMETERS" || blockType == "X9.42 DH PARAMETERS"
}

func parseKeyBlock(block *pem.Block, passphrase []byte) (key crypto.Signer, encrypted bool, err error) {
	der := block.Bytes
	// The legacy OpenSSL format marks encryption in RFC 1421 headers.
	if strings.Contains(block.Headers["Proc-Type"], "ENCRYPTED") {
		if err := needPassphrase(passphrase); err != nil {
			return nil, true, err
		}
		//lint:ignore SA1019 this encryption is weak, but operators have such keys
		der, err = x509.DecryptPEMBlock(block, passphrase)
		if errors.Is(err, x509.IncorrectPasswordError) {
			return nil, true, errWrongPassphrase
		}
		if err != nil {
			return nil, true, errEncryption
		}
		key, err = parseDecrypted(der)
		return key, true, err
	}
	switch block.Type {
	case "ENCRYPTED PRIVATE KEY", "PRIVATE KEY", "RSA PRIVATE KEY", "EC PRIVATE KEY":
		return parseKeyDER(der, passphrase)
	}
	return nil, false, errKeyKind
}

// parseKeyDER detects the form of a key from its bytes, because some programs
// label PKCS#1 as PKCS#8 and vice versa.
func parseKeyDER(der, passphrase []byte) (key crypto.Signer, encrypted bool, err error) {
	switch {
	case IsPKCS12(der):
		return nil, false, errors.New("is a PKCS#12 archive: want only the private key")
	case isCertificate(der):
		return nil, false, errors.New("holds a certificate: want only the private key")
	}
	info := parseEncryptedKey(der)
	if info == nil {
		key, err = parsePlainKey(der)
		return key, false, err
	}
	if err := needPassphrase(passphrase); err != nil {
		return nil, true, err
	}
	plain, err := info.decrypt(passphrase)
	if err != nil {
		return nil, true, err
	}
	key, err = parseDecrypted(plain)
	return key, true, err
}

// parseDecrypted distinguishes a damaged or unsupported key from garbage, because one
// wrong passphrase in 256 produces valid padding.
func parseDecrypted(der []byte) (crypto.Signer, error) {
	key, err := parsePlainKey(der)
	if errors.Is(err, errDamagedKey) && !resemblesKey(der) {
		return nil, errWrongPassphrase
	}
	return key, err
}

// resemblesKey reports whether der is one SEQUENCE that begins with an INTEGER, as every
// form of a private key does. Garbage that begins
// with the tag of a SEQUENCE, or of another class with the same number, is not a key.
func resemblesKey(der []byte) bool {
	if bytes.HasPrefix(der, []byte{0x30, 0x80, 0x02}) { // BER with indefinite length
		return true
	}
	rest := cryptobyte.String(der)
	var content cryptobyte.String
	return rest.ReadASN1(&content, asn1.SEQUENCE) && rest.Empty() && content.PeekASN1Tag(asn1.INTEGER)
}

func needPassphrase(passphrase []byte) error {
	if len(passphrase) == 0 {
		return PassphraseError("is missing: the private key is encrypted")
	}
	return nil
}

func parsePlainKey(der []byte) (crypto.Signer, error) {
	if len(der) > maxKeyBytes {
		return nil, fmt.Errorf("is a key of %d bytes: at most %d are read", len(der), maxKeyBytes)
	}
	if key, err := x509.ParsePKCS8PrivateKey(der); err == nil {
		return checkKey(key)
	}
	if key, err := x509.ParsePKCS1PrivateKey(der); err == nil {
		return checkKey(key)
	}
	if key, err := x509.ParseECPrivateKey(der); err == nil {
		return checkKey(key)
	}
	return nil, unsupportedKey(der)
}

// checkKey returns the key if TLS can sign with it.
func checkKey(key any) (crypto.Signer, error) {
	switch k := key.(type) {
	case *rsa.PrivateKey:
		if n := k.N.BitLen(); n < 1024 || n > 8192 {
			return nil, fmt.Errorf("is an RSA key of %d bits: TLS peers accept 1024 to 8192 bits, and 2048 is the safe minimum", n)
		}
		return k, nil
	case *ecdsa.PrivateKey:
		if k.Curve == elliptic.P224() {
			return nil, errors.New("is an ECDSA key on P-224, which TLS does not support: want P-256, P-384 or P-521")
		}
		return k, nil
	case ed25519.PrivateKey:
		return k, nil
	}
	return nil, errKeyKind
}

// IsKeyOf reports whether key is the private half of the certificate's key.
func IsKeyOf(cert *x509.Certificate, key crypto.Signer) bool {
	public, ok := cert.PublicKey.(interface{ Equal(crypto.PublicKey) bool })
	return ok && public.Equal(key.Public())
}
