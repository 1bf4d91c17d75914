package certs

import (
	"crypto/tls"
	_ "embed"
	"strings"
)

// A suite is a TLS 1.2 cipher suite of crypto/tls with the properties that
// OpenSSL's aliases select by.
type suite struct {
	id      uint16
	openssl string
	aliases string // the aliases that select the suite
	bits    int
}

// suites are in OpenSSL's order of preference. Their aliases are the columns of
// `openssl ciphers -V`. MEDIUM and the classes of RC4 and 3DES follow OpenSSL
// 1.1.0 and later.
var suites = []suite{
	{tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384, "ECDHE-ECDSA-AES256-GCM-SHA384", "TLSv1.2 ECDHE ECDSA AESGCM AES256 HIGH", 256},
	{tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384, "ECDHE-RSA-AES256-GCM-SHA384", "TLSv1.2 ECDHE aRSA AESGCM AES256 HIGH", 256},
	{tls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256, "ECDHE-ECDSA-CHACHA20-POLY1305", "TLSv1.2 ECDHE ECDSA CHACHA20 HIGH", 256},
	{tls.TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256, "ECDHE-RSA-CHACHA20-POLY1305", "TLSv1.2 ECDHE aRSA CHACHA20 HIGH", 256},
	{tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, "ECDHE-ECDSA-AES128-GCM-SHA256", "TLSv1.2 ECDHE ECDSA AESGCM AES128 HIGH", 128},
	{tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256, "ECDHE-RSA-AES128-GCM-SHA256", "TLSv1.2 ECDHE aRSA AESGCM AES128 HIGH", 128},
	{tls.TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA256, "ECDHE-ECDSA-AES128-SHA256", "TLSv1.2 ECDHE ECDSA AES128 SHA256 HIGH", 128},
	{tls.TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA256, "ECDHE-RSA-AES128-SHA256", "TLSv1.2 ECDHE aRSA AES128 SHA256 HIGH", 128},
	{tls.TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA, "ECDHE-ECDSA-AES256-SHA", "TLSv1.0 ECDHE ECDSA AES256 SHA1 HIGH", 256},
	{tls.TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA, "ECDHE-RSA-AES256-SHA", "TLSv1.0 ECDHE aRSA AES256 SHA1 HIGH", 256},
	{tls.TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA, "ECDHE-ECDSA-AES128-SHA", "TLSv1.0 ECDHE ECDSA AES128 SHA1 HIGH", 128},
	{tls.TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA, "ECDHE-RSA-AES128-SHA", "TLSv1.0 ECDHE aRSA AES128 SHA1 HIGH", 128},
	{tls.TLS_RSA_WITH_AES_256_GCM_SHA384, "AES256-GCM-SHA384", "TLSv1.2 kRSA aRSA AESGCM AES256 HIGH", 256},
	{tls.TLS_RSA_WITH_AES_128_GCM_SHA256, "AES128-GCM-SHA256", "TLSv1.2 kRSA aRSA AESGCM AES128 HIGH", 128},
	{tls.TLS_RSA_WITH_AES_128_CBC_SHA256, "AES128-SHA256", "TLSv1.2 kRSA aRSA AES128 SHA256 HIGH", 128},
	{tls.TLS_RSA_WITH_AES_256_CBC_SHA, "AES256-SHA", "SSLv3 kRSA aRSA AES256 SHA1 HIGH", 256},
	{tls.TLS_RSA_WITH_AES_128_CBC_SHA, "AES128-SHA", "SSLv3 kRSA aRSA AES128 SHA1 HIGH", 128},
	{tls.TLS_ECDHE_RSA_WITH_3DES_EDE_CBC_SHA, "ECDHE-RSA-DES-CBC3-SHA", "TLSv1.0 ECDHE aRSA 3DES SHA1 MEDIUM", 112},
	{tls.TLS_RSA_WITH_3DES_EDE_CBC_SHA, "DES-CBC3-SHA", "SSLv3 kRSA aRSA 3DES SHA1 MEDIUM", 112},
	{tls.TLS_ECDHE_ECDSA_WITH_RC4_128_SHA, "ECDHE-ECDSA-RC4-SHA", "TLSv1.0 ECDHE ECDSA RC4 SHA1 MEDIUM", 128},
	{tls.TLS_ECDHE_RSA_WITH_RC4_128_SHA, "ECDHE-RSA-RC4-SHA", "TLSv1.0 ECDHE aRSA RC4 SHA1 MEDIUM", 128},
	{tls.TLS_RSA_WITH_RC4_128_SHA, "RC4-SHA", "SSLv3 kRSA aRSA RC4 SHA1 MEDIUM", 128},
}

// aliasSpellings are other spellings of the aliases above. SHA256 and SHA384 select
// MACs only (openssl-ciphers(1)), so they do not match AEAD suites.
var aliasSpellings = map[string]string{
	"RSA": "kRSA", "kECDHE": "ECDHE", "kEECDH": "ECDHE", "EECDH": "ECDHE",
	"aECDSA": "ECDSA", "SHA": "SHA1", "TLSv1": "TLSv1.0",
}

// emptyAliases are old and new OpenSSL aliases that select no suite of
// crypto/tls. Excluding them has no effect.
const emptyAliases = ` LOW EXP EXPORT EXPORT40 EXPORT56 eNULL NULL aNULL COMPLEMENTOFALL COMPLEMENTOFDEFAULT
 MD5 DES IDEA SEED RC2 CAMELLIA CAMELLIA128 CAMELLIA256 ARIA ARIA128 ARIA256 ARIAGCM AESCCM AESCCM8
 SHA384 GOST GOST94 GOST89MAC aGOST aGOST01 kGOST KRB5 FIPS SSLv2 TLSv1.1
 DH ADH AECDH DHE EDH kDHE kEDH kDH kDHr kDHd aDH DSS aDSS kECDH kECDHe kECDHr ECDH aECDH
 PSK kPSK aPSK kRSAPSK kDHEPSK kECDHEPSK kPSKs SRP kSRP aSRP
`

// unsupportedText lists the IANA and OpenSSL names of every suite that OpenSSL
// supports or once supported and crypto/tls does not.
//
//go:embed unsupported_ciphers.txt
var unsupportedText string

// has reports whether an alias selects the suite.
func (s *suite) has(alias string) bool {
	switch alias {
	case "ALL", "DEFAULT":
		return true
	case "AES":
		return s.has("AES128") || s.has("AES256")
	}
	for w := range strings.FieldsSeq(s.aliases) {
		if w == alias {
			return true
		}
	}
	return false
}

// insecure reports whether crypto/tls lists the suite as insecure. It offers
// no such suite by default.
func (s *suite) insecure() bool {
	for _, c := range tls.InsecureCipherSuites() {
		if c.ID == s.id {
			return true
		}
	}
	return false
}

// isTLS13 reports whether name is a TLS 1.3 suite or the alias for all of
// them.
func isTLS13(name string) bool {
	switch strings.ToUpper(name) {
	case "TLSV1.3", "TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256",
		"TLS_AES_128_CCM_SHA256", "TLS_AES_128_CCM_8_SHA256":
		return true
	}
	return false
}

// suiteNamed returns the suite with the given IANA or OpenSSL name, or nil.
func suiteNamed(name string) *suite {
	// crypto/tls once used shorter names for the ChaCha suites than RFC 7905.
	// IANA's list has both.
	if strings.HasSuffix(strings.ToUpper(name), "_CHACHA20_POLY1305") {
		name += "_SHA256"
	}
	for i := range suites {
		if s := &suites[i]; strings.EqualFold(name, s.openssl) || strings.EqualFold(name, tls.CipherSuiteName(s.id)) {
			return s
		}
	}
	return nil
}

// isUnsupported reports whether name is an existing suite or alias that
// crypto/tls does not support.
func isUnsupported(name string) bool {
	for _, list := range []string{unsupportedText, emptyAliases} {
		for w := range strings.FieldsSeq(list) {
			if strings.EqualFold(w, name) {
				return true
			}
		}
	}
	return false
}

// suiteAlias returns the canonical spelling of an alias that selects supported
// suites.
func suiteAlias(name string) (string, bool) {
	for spelling, alias := range aliasSpellings {
		if strings.EqualFold(name, spelling) {
			return alias, true
		}
	}
	for _, special := range []string{"ALL", "DEFAULT", "AES"} {
		if strings.EqualFold(name, special) {
			return special, true
		}
	}
	for i := range suites {
		for w := range strings.FieldsSeq(suites[i].aliases) {
			if strings.EqualFold(name, w) {
				return w, true
			}
		}
	}
	return "", false
}

// suiteNames returns every valid name, for suggestions.
func suiteNames() []string {
	names := []string{"ALL", "DEFAULT", "AES"}
	for i := range suites {
		names = append(names, suites[i].openssl, tls.CipherSuiteName(suites[i].id))
		names = append(names, strings.Fields(suites[i].aliases)...)
	}
	for spelling := range aliasSpellings {
		names = append(names, spelling)
	}
	return append(append(names, strings.Fields(unsupportedText)...), strings.Fields(emptyAliases)...)
}
