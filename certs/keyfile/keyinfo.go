package keyfile

import (
	"cmp"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"
)

var (
	oidECPublicKey = asn1.ObjectIdentifier{1, 2, 840, 10045, 2, 1}
	oidRSAPSS      = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 10}
)

// keyAlgorithms are the names of public-key algorithms and curves that this
// program recognizes but does not support.
var keyAlgorithms = map[string]string{
	oidRSAPSS.String():        "RSA-PSS",
	"1.2.840.10040.4.1":       "DSA",
	"1.3.101.110":             "X25519",
	"1.3.101.111":             "X448",
	"1.3.101.113":             "Ed448",
	"1.3.132.0.10":            "ECDSA secp256k1",
	"1.3.36.3.3.2.8.1.1.7":    "ECDSA brainpoolP256r1",
	"1.3.36.3.3.2.8.1.1.11":   "ECDSA brainpoolP384r1",
	"1.3.36.3.3.2.8.1.1.13":   "ECDSA brainpoolP512r1",
	"1.2.156.10197.1.301":     "SM2",
	"2.16.840.1.101.3.4.3.17": "ML-DSA-44",
	"2.16.840.1.101.3.4.3.18": "ML-DSA-65",
	"2.16.840.1.101.3.4.3.19": "ML-DSA-87",
}

// algorithmName returns the name of an unsupported public-key algorithm or of
// its curve, or "" if it is unknown.
func algorithmName(a pkix.AlgorithmIdentifier) string {
	if a.Algorithm.Equal(oidECPublicKey) {
		var curve asn1.ObjectIdentifier
		if !unmarshalAll(a.Parameters.FullBytes, &curve) {
			return ""
		}
		return keyAlgorithms[curve.String()]
	}
	return keyAlgorithms[a.Algorithm.String()]
}

// hasExplicitCurve reports whether a key's algorithm spells out its curve
// (RFC 5480, section 2.1.1) instead of naming it.
func hasExplicitCurve(a pkix.AlgorithmIdentifier) bool {
	return a.Algorithm.Equal(oidECPublicKey) && a.Parameters.Class == asn1.ClassUniversal && a.Parameters.Tag == asn1.TagSequence
}

// certificateKeyInfo returns the algorithm of the public key in a certificate
// that crypto/x509 may be unable to parse. It is zero if the DER is malformed.
func certificateKeyInfo(der []byte) (a pkix.AlgorithmIdentifier) {
	input := cryptobyte.String(der)
	var outer, tbs, info cryptobyte.String
	version := cbasn1.Tag(0).Constructed().ContextSpecific()
	ok := input.ReadASN1(&outer, cbasn1.SEQUENCE) && outer.ReadASN1(&tbs, cbasn1.SEQUENCE) &&
		tbs.SkipOptionalASN1(version) && tbs.SkipASN1(cbasn1.INTEGER) &&
		tbs.SkipASN1(cbasn1.SEQUENCE) && tbs.SkipASN1(cbasn1.SEQUENCE) && // signature, issuer
		tbs.SkipASN1(cbasn1.SEQUENCE) && tbs.SkipASN1(cbasn1.SEQUENCE) && // validity, subject
		tbs.ReadASN1(&info, cbasn1.SEQUENCE)
	if ok {
		a, _ = readAlgorithm(&info)
	}
	return a
}

func readAlgorithm(s *cryptobyte.String) (a pkix.AlgorithmIdentifier, ok bool) {
	var element cryptobyte.String
	ok = s.ReadASN1Element(&element, cbasn1.SEQUENCE) && unmarshalAll(element, &a)
	return a, ok
}

// unsupportedKey returns the fault of a private key that crypto/x509 cannot
// parse. It names only the kind of the key.
func unsupportedKey(der []byte) error {
	var pkcs8 struct {
		Version   int
		Algorithm pkix.AlgorithmIdentifier
		Key       []byte
	}
	if _, err := asn1.Unmarshal(der, &pkcs8); err == nil {
		return unsupportedAlgorithm(pkcs8.Algorithm)
	}
	var sec1 struct {
		Version    int
		Key        []byte
		Parameters asn1.RawValue `asn1:"optional,tag:0"`
		PublicKey  asn1.RawValue `asn1:"optional,tag:1"`
	}
	var curve asn1.RawValue
	if _, err := asn1.Unmarshal(der, &sec1); err == nil && unmarshalAll(sec1.Parameters.Bytes, &curve) {
		return unsupportedAlgorithm(pkix.AlgorithmIdentifier{Algorithm: oidECPublicKey, Parameters: curve})
	}
	return errDamagedKey
}

func unsupportedAlgorithm(a pkix.AlgorithmIdentifier) error {
	switch name := algorithmName(a); {
	case hasExplicitCurve(a):
		return errors.New("is an ECDSA key with explicit curve parameters, which TLS forbids (RFC 5480): make a key with a named curve; if the curve is P-256, P-384 or P-521, `openssl ec -param_enc named_curve` rewrites it")
	case a.Algorithm.Equal(oidRSAPSS):
		return errors.New("is an RSA-PSS key, which is not supported: want ECDSA, RSA (rsaEncryption) or Ed25519, as `openssl genpkey -algorithm RSA` writes it")
	case name != "":
		return fmt.Errorf("is of the kind %s, which is not supported: want ECDSA, RSA or Ed25519", name)
	}
	return errDamagedKey
}

// CertificateKeyType describes a certificate's key, whether or not it is supported.
func CertificateKeyType(c *x509.Certificate) string {
	if t := KeyType(c.PublicKey); t != unknownKey {
		return t
	}
	return cmp.Or(algorithmName(certificateKeyInfo(c.Raw)), unknownKey)
}

// PublicKeyType describes the key of a certificate in DER, and reports whether
// it is of a supported kind. The certificate may be one that crypto/x509 cannot
// parse.
func PublicKeyType(der []byte) (kind string, supported bool) {
	if c, err := x509.ParseCertificate(der); err == nil {
		k, isECDSA := c.PublicKey.(*ecdsa.PublicKey)
		return CertificateKeyType(c), KeyType(c.PublicKey) != unknownKey && (!isECDSA || k.Curve != elliptic.P224())
	}
	return cmp.Or(algorithmName(certificateKeyInfo(der)), unknownKey), false
}

// KeyType describes a public key: "RSA 2048", "ECDSA P-256". It returns "unknown" for
// a kind that is not supported.
func KeyType(public any) string {
	switch k := public.(type) {
	case *rsa.PublicKey:
		return fmt.Sprintf("RSA %d", k.N.BitLen())
	case *ecdsa.PublicKey:
		return "ECDSA " + k.Curve.Params().Name
	case ed25519.PublicKey:
		return "Ed25519"
	}
	return unknownKey
}

const unknownKey = "unknown"
