package pki

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"
)

// KeyType is a kind of key pair.
type KeyType int

// The zero KeyType is ECDSAP256, which every current TLS implementation
// supports and which makes the cheapest handshake.
const (
	ECDSAP256 KeyType = iota
	ECDSAP384
	RSA2048
	RSA3072
	RSA4096
	Ed25519
)

var keyTypeNames = [...]string{
	ECDSAP256: "ecdsa-p256",
	ECDSAP384: "ecdsa-p384",
	RSA2048:   "rsa-2048",
	RSA3072:   "rsa-3072",
	RSA4096:   "rsa-4096",
	Ed25519:   "ed25519",
}

// KeyTypeNames returns every name that ParseKeyType accepts, the default first.
func KeyTypeNames() []string { return append([]string(nil), keyTypeNames[:]...) }

// ParseKeyType returns the key type with the given name. The empty name means
// the default, ECDSAP256.
func ParseKeyType(name string) (KeyType, error) {
	if name == "" {
		return ECDSAP256, nil
	}
	for i, n := range keyTypeNames {
		if strings.EqualFold(n, name) {
			return KeyType(i), nil
		}
	}
	return 0, fmt.Errorf("unknown key type %q: want one of %s", name, strings.Join(keyTypeNames[:], ", "))
}

// String returns the name that ParseKeyType accepts.
func (k KeyType) String() string {
	if k < 0 || int(k) >= len(keyTypeNames) {
		return fmt.Sprintf("KeyType(%d)", int(k))
	}
	return keyTypeNames[k]
}

// generate makes a new key pair.
func (k KeyType) generate() (crypto.Signer, error) {
	switch k {
	case ECDSAP256:
		return ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case ECDSAP384:
		return ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	case RSA2048:
		return rsa.GenerateKey(rand.Reader, 2048)
	case RSA3072:
		return rsa.GenerateKey(rand.Reader, 3072)
	case RSA4096:
		return rsa.GenerateKey(rand.Reader, 4096)
	case Ed25519:
		_, key, err := ed25519.GenerateKey(rand.Reader)
		return key, err
	}
	return nil, fmt.Errorf("unknown key type %v", k)
}

// encodeKey returns the key as PKCS#8 in PEM, the only form that OpenSSL, nginx
// and Java's tools all support.
func encodeKey(key crypto.Signer) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), nil
}

// decodeKey reads the output of encodeKey. Its errors never quote the input.
func decodeKey(text []byte) (crypto.Signer, error) {
	block, _ := pem.Decode(text)
	if block == nil || block.Type != "PRIVATE KEY" {
		return nil, errors.New("holds no PKCS#8 private key in PEM")
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, errors.New("holds a private key that cannot be read")
	}
	signer, ok := key.(crypto.Signer)
	if !ok {
		return nil, errors.New("holds a key that cannot sign")
	}
	return signer, nil
}
