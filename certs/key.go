package certs

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"
)

// errEncryptedKey is what an encrypted key is refused with.
var errEncryptedKey = errors.New("is encrypted: decrypt it first, for example with `openssl pkey -in key.pem -out plain.pem`")

// parseKey reads the one private key in PEM text: PKCS#8, PKCS#1 or SEC1. Its
// errors never quote the text, nor what a decoder said of it, and they do not
// spell the type of a PEM block of keys: text with that in it is taken for a key,
// and kept out of answers and logs.
func parseKey(text []byte) (crypto.Signer, error) {
	if len(bytes.TrimSpace(text)) == 0 {
		return nil, errors.New("is empty: want a private key in PEM")
	}
	if len(text) > maxPEMBytes {
		return nil, fmt.Errorf("is %d bytes long: at most %d are read", len(text), maxPEMBytes)
	}
	var key crypto.Signer
	for rest := text; ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		switch {
		case block.Type == "EC PARAMETERS": // openssl ecparam -genkey writes it before the key
			continue
		case block.Type == certificatePEM:
			return nil, errors.New("holds a certificate: want only the private key")
		case strings.Contains(block.Type, "PUBLIC KEY"):
			return nil, errors.New("holds a public key: want the private key")
		case !strings.HasSuffix(block.Type, "PRIVATE KEY"):
			return nil, errors.New("holds a PEM block that is no private key: want one of PKCS#8, PKCS#1 or SEC1")
		case key != nil:
			return nil, errors.New("holds more than one private key")
		}
		var err error
		if key, err = parseKeyBlock(block); err != nil {
			return nil, err
		}
	}
	if key == nil {
		return nil, errors.New("holds no private key in PEM, as `openssl genpkey` writes it")
	}
	return key, nil
}

func parseKeyBlock(block *pem.Block) (crypto.Signer, error) {
	// RFC 1421 headers say so in the old form of OpenSSL.
	if block.Type == "ENCRYPTED PRIVATE KEY" || strings.Contains(block.Headers["Proc-Type"], "ENCRYPTED") {
		return nil, errEncryptedKey
	}
	var key any
	var err error
	switch block.Type {
	case "PRIVATE KEY":
		key, err = x509.ParsePKCS8PrivateKey(block.Bytes)
	case "RSA PRIVATE KEY":
		key, err = x509.ParsePKCS1PrivateKey(block.Bytes)
	case "EC PRIVATE KEY":
		key, err = x509.ParseECPrivateKey(block.Bytes)
	default:
		return nil, errors.New("is of a kind that TLS has no use for: want ECDSA, RSA or Ed25519")
	}
	if err != nil {
		return nil, errors.New("cannot be parsed: the key is damaged or of a kind that is not supported; want ECDSA, RSA or Ed25519")
	}
	switch k := key.(type) {
	case *rsa.PrivateKey:
		if n := k.N.BitLen(); n < 1024 || n > 8192 {
			return nil, fmt.Errorf("is an RSA key of %d bits: TLS peers take 1024 to 8192, and 2048 is the least that is safe", n)
		}
		return k, nil
	case *ecdsa.PrivateKey:
		return k, nil
	case ed25519.PrivateKey:
		return k, nil
	}
	return nil, errors.New("is of a kind that TLS has no use for: want ECDSA, RSA or Ed25519")
}

// isKeyOf reports whether key is the private half of the certificate's key.
func isKeyOf(cert *x509.Certificate, key crypto.Signer) bool {
	public, ok := cert.PublicKey.(interface{ Equal(crypto.PublicKey) bool })
	return ok && public.Equal(key.Public())
}
