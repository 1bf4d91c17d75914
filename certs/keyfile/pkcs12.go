package keyfile

import (
	"crypto"
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/pbkdf2"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"
	"software.sslmate.com/src/go-pkcs12"

	"github.com/drawbridge-gateway/drawbridge/certs/safetext"
)

const pkcs12Rewrite = "`openssl pkcs12 -in old.p12 -nodes | openssl pkcs12 -export -out new.p12` rewrites it (with -legacy for an old one)"

var (
	errPKCS12Damaged    = errors.New("cannot be parsed: want a PKCS#12 archive in DER")
	errPKCS12BER        = errors.New("is in BER, not in DER: " + pkcs12Rewrite)
	errPKCS12Derivation = errors.New("requires more key derivation rounds than the limit: `openssl pkcs12 -export -iter 100000` writes a reasonable number")
	errPKCS12Passphrase = PassphraseError("is not the one that the archive is encrypted with")
	errPKCS12Hidden     = errors.New("holds a private key among the encrypted certificates: " + pkcs12Rewrite)
	errPKCS12NoMAC      = errors.New("has no MAC, so the passphrase cannot be checked: " + pkcs12Rewrite)
)

// The structures of RFC 7292 that determine the form of an archive and the cost
// of decrypting it. The library does the decryption.
type (
	pfx struct {
		Version  int
		AuthSafe contentInfo
		MAC      macData `asn1:"optional"`
	}
	contentInfo struct {
		Type    asn1.ObjectIdentifier
		Content asn1.RawValue `asn1:"tag:0,explicit,optional"`
	}
	macData struct {
		MAC struct {
			Algorithm pkix.AlgorithmIdentifier
			Digest    []byte
		}
		Salt       []byte
		Iterations int `asn1:"optional,default:1"`
	}
	encryptedData struct {
		Version int
		Info    struct {
			Type      asn1.ObjectIdentifier
			Algorithm pkix.AlgorithmIdentifier
			Content   []byte `asn1:"tag:0,optional"`
		}
	}
	safeBag struct {
		ID         asn1.ObjectIdentifier
		Value      asn1.RawValue `asn1:"tag:0,explicit"`
		Attributes asn1.RawValue `asn1:"set,optional"`
	}
)

var (
	oidEncryptedData = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 7, 6}
	oidKeyBag        = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 12, 10, 1, 1}
	oidShroudedBag   = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 12, 10, 1, 2}
	oidPBMAC1        = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 5, 14}
	oidPKCS12PBE     = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 12, 1} // the prefix of the algorithms below
)

// ParsePKCS12 returns the certificates of an archive (at least one), its one
// key, and whether a passphrase encrypts or signs any part. Archives may use
// an empty passphrase.
func ParsePKCS12(data, passphrase []byte) (certs []*x509.Certificate, key crypto.Signer, protected bool, err error) {
	if len(data) > maxPEMBytes {
		return nil, nil, false, fmt.Errorf("is %d bytes long: at most %d are read", len(data), maxPEMBytes)
	}
	if !utf8.Valid(passphrase) {
		return nil, nil, false, PassphraseError("is not in UTF-8")
	}
	for _, r := range string(passphrase) {
		if r > 0xffff {
			return nil, nil, false, PassphraseError("has characters that PKCS#12 cannot represent")
		}
	}
	encrypted, protected, err := inspectPKCS12(data)
	if err != nil {
		return nil, nil, false, err
	}
	if !protected {
		passphrase = nil
	}
	for _, safe := range encrypted {
		if err := checkEncryptedSafe(safe, passphrase); err != nil {
			explained := explainPKCS12(err, passphrase)
			if explained != errPKCS12Hidden {
				// First check the archive's MAC, because one wrong passphrase in 256 seems
				// to decrypt the part.
				if _, _, _, err := pkcs12.DecodeChain(data, string(passphrase)); errors.Is(err, pkcs12.ErrIncorrectPassword) {
					explained = explainPKCS12(err, passphrase)
				}
			}
			return nil, nil, false, explained
		}
	}
	anyKey, leaf, others, err := pkcs12.DecodeChain(data, string(passphrase))
	if err != nil {
		return nil, nil, false, explainPKCS12(err, passphrase)
	}
	certs = append([]*x509.Certificate{leaf}, others...)
	if len(certs) > MaxChain {
		return nil, nil, false, fmt.Errorf("holds more than %d certificates", MaxChain)
	}
	for i, c := range certs {
		if err := checkPublicKey(c); err != nil {
			return nil, nil, false, fmt.Errorf("certificate %d %w", i+1, err)
		}
	}
	if key, err = checkKey(anyKey); err != nil {
		return nil, nil, false, fmt.Errorf("holds a private key that %w", err)
	}
	return certs, key, protected, nil
}

// inspectPKCS12 rejects archives that are too expensive to decrypt or that the
// library would report unclearly. It returns the encrypted parts and whether a
// passphrase is used.
func inspectPKCS12(data []byte) (encrypted [][]byte, protected bool, err error) {
	var outer pfx
	if !unmarshalAll(data, &outer) {
		if err := notPKCS12(data); err != nil {
			return nil, false, err
		}
		if len(data) > 1 && data[0] == 0x30 && data[1] == 0x80 && IsPKCS12(data) {
			return nil, false, errPKCS12BER
		}
		return nil, false, errPKCS12Damaged
	}
	switch {
	case outer.AuthSafe.Type.Equal(oidSignedData):
		return nil, false, errors.New("is signed with a key; only a signature with a passphrase is supported: " + pkcs12Rewrite)
	case outer.Version != 3 || !outer.AuthSafe.Type.Equal(oidData):
		return nil, false, errPKCS12Damaged
	}
	var content []byte
	if !unmarshalAll(outer.AuthSafe.Content.Bytes, &content) {
		return nil, false, errPKCS12Damaged
	}
	if len(content) > 1 && content[0] == 0x30 && content[1] == 0x80 {
		return nil, false, errPKCS12BER
	}
	var safes []asn1.RawValue
	if !unmarshalAll(content, &safes) {
		return nil, false, errPKCS12Damaged
	}

	cost := new(derivation)
	if len(outer.MAC.MAC.Algorithm.Algorithm) > 0 {
		cost.mac(&outer.MAC)
		protected = true
	}
	keys := 0
	for _, raw := range safes {
		var safe contentInfo
		switch {
		case !unmarshalAll(raw.FullBytes, &safe):
			return nil, false, errPKCS12Damaged
		case safe.Type.Equal(oidEncryptedData):
			var d encryptedData
			if !unmarshalAll(safe.Content.Bytes, &d) {
				return nil, false, errPKCS12Damaged
			}
			cost.pbe(d.Info.Algorithm)
			cost.pbe(d.Info.Algorithm) // once to inspect, once to decrypt
			encrypted, protected = append(encrypted, raw.FullBytes), true
		case safe.Type.Equal(oidData):
			var inner []byte
			var bags []safeBag
			if !unmarshalAll(safe.Content.Bytes, &inner) || !unmarshalAll(inner, &bags) {
				return nil, false, errPKCS12Damaged
			}
			for _, bag := range bags {
				if !bag.ID.Equal(oidKeyBag) && !bag.ID.Equal(oidShroudedBag) {
					continue
				}
				if len(bag.Value.Bytes) > maxKeyBytes {
					return nil, false, fmt.Errorf("holds a key of %d bytes: at most %d are read", len(bag.Value.Bytes), maxKeyBytes)
				}
				keys++
				if bag.ID.Equal(oidShroudedBag) {
					k := parseEncryptedKey(bag.Value.Bytes)
					if k == nil {
						return nil, false, errPKCS12Damaged
					}
					cost.pbe(k.Algorithm)
					protected = true
				}
			}
		default:
			return nil, false, errPKCS12Damaged
		}
	}
	switch {
	case cost.damaged:
		return nil, false, errPKCS12Damaged
	case cost.total > maxDerivation:
		return nil, false, errPKCS12Derivation
	case len(safes) > 2:
		return nil, false, fmt.Errorf("has %d parts; only one with keys and one with certificates are supported: %s", len(safes), pkcs12Rewrite)
	case keys > 1:
		return nil, false, errors.New("holds more than one private key: want only the key of the certificate; `keytool -importkeystore -srcalias NAME -srckeystore old.p12 -destkeystore new.p12` extracts one")
	}
	return encrypted, protected, nil
}

// A derivation is the total cost of deriving the keys of a file, in rounds of
// HMAC.
type derivation struct {
	total   int
	damaged bool
}

func (d *derivation) add(rounds, times int) {
	// Each term is bounded, so that the sum cannot overflow.
	d.total += min(max(rounds, 0), maxDerivation+1) * times
	d.total = min(d.total, maxDerivation+1)
}

func (d *derivation) mac(m *macData) {
	if !m.MAC.Algorithm.Algorithm.Equal(oidPBMAC1) {
		d.add(m.Iterations, 1)
		return
	}
	var params struct{ KDF, MAC pkix.AlgorithmIdentifier }
	if !unmarshalAll(m.MAC.Algorithm.Parameters.FullBytes, &params) {
		d.damaged = true
		return
	}
	d.pbkdf2(params.KDF, 4) // a key of 64 bytes at most
}

// pbe adds the cost of an algorithm that the library supports, and rejects
// others.
func (d *derivation) pbe(a pkix.AlgorithmIdentifier) {
	switch n := len(oidPKCS12PBE); {
	case a.Algorithm.Equal(oidPBES2):
		var params pbes2Params
		if !unmarshalAll(a.Parameters.FullBytes, &params) {
			d.damaged = true
			return
		}
		d.pbkdf2(params.KDF, 2) // a key of 32 bytes at most
	case len(a.Algorithm) > n && a.Algorithm[:n].Equal(oidPKCS12PBE):
		var params struct {
			Salt       []byte
			Iterations int
		}
		d.damaged = d.damaged || !unmarshalAll(a.Parameters.FullBytes, &params)
		d.add(params.Iterations, 2) // three hashes, each about half of an HMAC
	}
}

func (d *derivation) pbkdf2(kdf pkix.AlgorithmIdentifier, blocks int) {
	var params pbkdf2Params
	if !kdf.Algorithm.Equal(oidPBKDF2) || !unmarshalAll(kdf.Parameters.FullBytes, &params) {
		d.damaged = !kdf.Algorithm.Equal(oidScrypt) || d.damaged
		return
	}
	if _, size := hmacHash(params.PRF.Algorithm); size >= sha256.Size {
		blocks = (blocks + 1) / 2
	}
	d.add(params.Iterations, blocks)
}

// checkEncryptedSafe rejects an encrypted part that holds a key: that key may be
// encrypted itself, and the library would decrypt it at an unknown cost. The
// check gives the library an archive of two parts, a generated key and safe. The
// library rejects a second key before it decrypts that key.
func checkEncryptedSafe(safe, passphrase []byte) error {
	ours, err := x509.MarshalPKCS8PrivateKey(ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize)))
	if err != nil {
		return err
	}
	probe, err := probePKCS12(ours, safe, passphrase)
	if err != nil {
		return err
	}
	_, _, _, err = pkcs12.DecodeChain(probe, string(passphrase))
	return err
}

// probePKCS12 returns an archive of two parts: an unencrypted key, and safe.
// Its MAC is valid and cheap.
func probePKCS12(key, safe, passphrase []byte) ([]byte, error) {
	explicit := cbasn1.Tag(0).Constructed().ContextSpecific()
	var content cryptobyte.Builder
	content.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
			b.AddASN1ObjectIdentifier(oidData)
			b.AddASN1(explicit, func(b *cryptobyte.Builder) {
				b.AddASN1(cbasn1.OCTET_STRING, func(b *cryptobyte.Builder) {
					b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
						b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
							b.AddASN1ObjectIdentifier(oidKeyBag)
							b.AddASN1(explicit, func(b *cryptobyte.Builder) { b.AddBytes(key) })
						})
					})
				})
			})
		})
		b.AddBytes(safe)
	})
	authSafe, err := content.Bytes()
	if err != nil {
		return nil, err
	}

	// PBMAC1 (RFC 9579) with a single round: the standard library can compute it.
	salt := []byte("drawbridge")
	macKey, err := pbkdf2.Key(sha256.New, string(passphrase), salt, 1, sha256.Size)
	if err != nil {
		return nil, err
	}
	mac := hmac.New(sha256.New, macKey)
	mac.Write(authSafe)
	hmacSHA256 := func(b *cryptobyte.Builder) { b.AddASN1ObjectIdentifier(oidHMACSHA256) }
	var out cryptobyte.Builder
	out.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1Int64(3)
		b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
			b.AddASN1ObjectIdentifier(oidData)
			b.AddASN1(explicit, func(b *cryptobyte.Builder) { b.AddASN1OctetString(authSafe) })
		})
		b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) { // MacData
			b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) { // DigestInfo
				b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) { // AlgorithmIdentifier
					b.AddASN1ObjectIdentifier(oidPBMAC1)
					b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
						b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
							b.AddASN1ObjectIdentifier(oidPBKDF2)
							b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
								b.AddASN1OctetString(salt)
								b.AddASN1Int64(1)
								b.AddASN1Int64(sha256.Size)
								b.AddASN1(cbasn1.SEQUENCE, hmacSHA256)
							})
						})
						b.AddASN1(cbasn1.SEQUENCE, hmacSHA256)
					})
				})
				b.AddASN1OctetString(mac.Sum(nil))
			})
			b.AddASN1OctetString(salt) // unused with PBMAC1, but not optional
		})
	})
	return out.Bytes()
}

// explainPKCS12 replaces the library's errors, because their texts may quote
// decrypted content.
func explainPKCS12(err error, passphrase []byte) error {
	var unsupported pkcs12.NotImplementedError
	switch {
	case errors.As(err, &unsupported):
		return fmt.Errorf("is of a form that is not supported (%s): %s", safetext.Printable(string(unsupported), 100), pkcs12Rewrite)
	case err.Error() == "pkcs12: expected exactly one key bag":
		return errPKCS12Hidden
	case err.Error() == "pkcs12: certificate missing":
		return errors.New("holds no certificate")
	case err.Error() == "pkcs12: private key missing":
		return errors.New("holds no private key")
	case err.Error() == "pkcs12: no MAC in data":
		return errPKCS12NoMAC
	case strings.HasPrefix(err.Error(), "pkcs12: error decrypting PKCS#8 shrouded key bag"):
		if strings.HasSuffix(err.Error(), " is not supported") {
			return errors.New("holds a private key that is encrypted in a way that is not supported: " + pkcs12Rewrite)
		}
		return PassphraseError("does not decrypt the private key in the archive")
	case errors.Is(err, pkcs12.ErrIncorrectPassword) || errors.Is(err, pkcs12.ErrDecryption):
		if len(passphrase) == 0 {
			return PassphraseError("is missing: the archive is encrypted")
		}
		return errPKCS12Passphrase
	}
	return errors.New("cannot be read: it is damaged, or its private key is of a kind that is not supported; want ECDSA, RSA or Ed25519")
}
