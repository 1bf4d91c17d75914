package keyfile

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/des"
	"crypto/pbkdf2"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"hash"

	"golang.org/x/crypto/scrypt"
)

const (
	// maxDerivation bounds the cost of deriving keys for one file, in rounds of
	// HMAC: about a second. OpenSSL and Java write 2,048 to 10,000 rounds,
	// cautious operators a million; a file can request 2^63.
	maxDerivation = 3_000_000
	// maxScryptBytes bounds scrypt's memory, and maxScryptWork its time, both in
	// bytes. OpenSSL writes files of 16 MiB.
	maxScryptBytes = 64 << 20
	maxScryptWork  = 256 << 20
)

var (
	errWrongPassphrase = PassphraseError("is not the one that the private key is encrypted with")
	errEncryption      = errors.New("is encrypted in a way that is not supported: `openssl pkcs8 -topk8 -in key.pem -out new.pem` rewrites it in PKCS#8 with PBES2 and AES")
	errDerivation      = errors.New("requires more key derivation rounds than the limit: `openssl pkcs8 -topk8 -iter 600000` writes a reasonable number")
)

var (
	oidPBES2      = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 5, 13}
	oidPBKDF2     = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 5, 12}
	oidScrypt     = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 11591, 4, 11}
	oidHMACSHA1   = asn1.ObjectIdentifier{1, 2, 840, 113549, 2, 7}
	oidHMACSHA224 = asn1.ObjectIdentifier{1, 2, 840, 113549, 2, 8}
	oidHMACSHA256 = asn1.ObjectIdentifier{1, 2, 840, 113549, 2, 9}
	oidHMACSHA384 = asn1.ObjectIdentifier{1, 2, 840, 113549, 2, 10}
	oidHMACSHA512 = asn1.ObjectIdentifier{1, 2, 840, 113549, 2, 11}
	oidAES128CBC  = asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 1, 2}
	oidAES192CBC  = asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 1, 22}
	oidAES256CBC  = asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 1, 42}
	oidDESEDE3CBC = asn1.ObjectIdentifier{1, 2, 840, 113549, 3, 7}
)

// An encryptedKey is the EncryptedPrivateKeyInfo of RFC 5958 section 3.
type encryptedKey struct {
	Algorithm pkix.AlgorithmIdentifier
	Data      []byte
}

type pbes2Params struct {
	KDF    pkix.AlgorithmIdentifier
	Cipher pkix.AlgorithmIdentifier
}

type pbkdf2Params struct {
	Salt       asn1.RawValue // an OCTET STRING; in practice nothing uses the alternative
	Iterations int
	KeyLength  int                      `asn1:"optional"`
	PRF        pkix.AlgorithmIdentifier `asn1:"optional"`
}

// scryptParams are those of RFC 7914 section 7.1.
type scryptParams struct {
	Salt      []byte
	N, R, P   int
	KeyLength int `asn1:"optional"`
}

// parseEncryptedKey returns nil if der is not an encrypted PKCS#8 key.
func parseEncryptedKey(der []byte) *encryptedKey {
	var k encryptedKey
	if rest, err := asn1.Unmarshal(der, &k); err != nil || len(rest) > 0 {
		return nil
	}
	return &k
}

// decrypt undoes PBES2 (RFC 8018 section 6.2) and returns a PKCS#8 key, or
// possibly garbage with a wrong passphrase. The work for a hostile file is
// bounded before it starts. The passphrase must not be empty.
func (k *encryptedKey) decrypt(passphrase []byte) ([]byte, error) {
	if len(k.Data) > maxKeyBytes+aes.BlockSize {
		return nil, errDamagedKey
	}
	var params pbes2Params
	if !k.Algorithm.Algorithm.Equal(oidPBES2) || !unmarshalAll(k.Algorithm.Parameters.FullBytes, &params) {
		return nil, errEncryption
	}
	keyLength, newBlock := blockCipher(params.Cipher.Algorithm)
	var iv []byte
	if newBlock == nil || !unmarshalAll(params.Cipher.Parameters.FullBytes, &iv) {
		return nil, errEncryption
	}
	key, err := deriveKey(params.KDF, passphrase, keyLength)
	if err != nil {
		return nil, err
	}
	block, err := newBlock(key)
	if err != nil {
		return nil, errEncryption
	}
	size := block.BlockSize()
	if len(iv) != size || len(k.Data) == 0 || len(k.Data)%size != 0 {
		return nil, errDamagedKey
	}
	plain := make([]byte, len(k.Data))
	cipher.NewCBCDecrypter(block, iv).CryptBlocks(plain, k.Data)
	padding := int(plain[len(plain)-1])
	if padding == 0 || padding > size || !bytes.HasSuffix(plain, bytes.Repeat([]byte{byte(padding)}, padding)) {
		return nil, errWrongPassphrase
	}
	return plain[:len(plain)-padding], nil
}

func blockCipher(oid asn1.ObjectIdentifier) (keyLength int, create func([]byte) (cipher.Block, error)) {
	switch {
	case oid.Equal(oidAES128CBC):
		return 16, aes.NewCipher
	case oid.Equal(oidAES192CBC):
		return 24, aes.NewCipher
	case oid.Equal(oidAES256CBC):
		return 32, aes.NewCipher
	case oid.Equal(oidDESEDE3CBC):
		return 24, des.NewTripleDESCipher
	}
	return 0, nil
}

func deriveKey(kdf pkix.AlgorithmIdentifier, passphrase []byte, keyLength int) ([]byte, error) {
	switch {
	case kdf.Algorithm.Equal(oidPBKDF2):
		var p pbkdf2Params
		if !unmarshalAll(kdf.Parameters.FullBytes, &p) || p.Salt.Tag != asn1.TagOctetString ||
			p.Iterations < 1 || p.KeyLength != 0 && p.KeyLength != keyLength {
			return nil, errDamagedKey
		}
		hash, size := hmacHash(p.PRF.Algorithm)
		if hash == nil {
			return nil, errEncryption
		}
		if p.Iterations > maxDerivation/((keyLength+size-1)/size) {
			return nil, errDerivation
		}
		key, err := pbkdf2.Key(hash, string(passphrase), p.Salt.Bytes, p.Iterations, keyLength)
		if err != nil {
			return nil, errEncryption
		}
		return key, nil
	case kdf.Algorithm.Equal(oidScrypt):
		var p scryptParams
		if !unmarshalAll(kdf.Parameters.FullBytes, &p) || p.N < 2 || p.R < 1 || p.P < 1 ||
			p.KeyLength != 0 && p.KeyLength != keyLength {
			return nil, errDamagedKey
		}
		// Check each factor before the product, so that the product stays small.
		if p.N > maxScryptBytes/128 || p.R > maxScryptBytes/128/p.N || p.P > maxScryptWork/128/(p.N*p.R) {
			return nil, errDerivation
		}
		key, err := scrypt.Key(passphrase, p.Salt, p.N, p.R, p.P, keyLength)
		if err != nil {
			return nil, errDamagedKey
		}
		return key, nil
	}
	return nil, errEncryption
}

// hmacHash returns the hash of the pseudorandom function with this identifier
// (RFC 8018 appendix B.1), and its output size. The default is HMAC-SHA-1.
func hmacHash(oid asn1.ObjectIdentifier) (func() hash.Hash, int) {
	switch {
	case len(oid) == 0, oid.Equal(oidHMACSHA1):
		return sha1.New, sha1.Size
	case oid.Equal(oidHMACSHA224):
		return sha256.New224, sha256.Size224
	case oid.Equal(oidHMACSHA256):
		return sha256.New, sha256.Size
	case oid.Equal(oidHMACSHA384):
		return sha512.New384, sha512.Size384
	case oid.Equal(oidHMACSHA512):
		return sha512.New, sha512.Size
	}
	return nil, 0
}

// unmarshalAll reports whether der is one value without trailing data.
func unmarshalAll(der []byte, value any) bool {
	rest, err := asn1.Unmarshal(der, value)
	return err == nil && len(rest) == 0
}
