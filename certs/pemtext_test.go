package certs_test

import (
	"bytes"
	"encoding/base64"
	"strings"
	"testing"
	"unicode/utf16"

	"github.com/drawbridge-gateway/drawbridge/certs"
	"github.com/drawbridge-gateway/drawbridge/certs/certstest"
)

// Text around PEM blocks is allowed in any encoding (RFC 7468, section 2).
func TestTextAroundPEMBlocksIsIgnored(t *testing.T) {
	ca := certstest.NewCA(t)
	issued := ca.Server(t, "a.test")
	latin1 := []byte("Bag Attributes\n    friendlyName: M\xfcller Gateway\nsubject=CN = a.test\n")
	for name, text := range map[string][]byte{
		"attributes in Latin-1": latin1,
		"UTF-8":                 []byte("# Müller\n"),
		"a heading of dashes":   []byte("----------------\nGateway certificate\n----------------\n----- of 2026 -----\n"),
		"a heading of curl":     []byte("Gateway CA\n==========\n"),
	} {
		bundle, err := certs.ParseTrustBundle(join(text, ca.CertPEM(), text, certstest.NewCA(t).CertPEM(), text))
		if err != nil || bundle.Count() != 2 {
			t.Errorf("%s: in a trust bundle: %v", name, err)
		}
		if _, err := certs.ParseCertificate(join(text, issued.ChainPEM, text), join(text, issued.KeyPEM, text)); err != nil {
			t.Errorf("%s: in a chain and a key: %v", name, err)
		}
		if _, err := certs.NewTrustBundle(certs.TrustSource{Certificates: ca.CertPEM(), CRLs: []certs.CRLSource{{Data: join(text, ca.CRL(t), text)}}}); err != nil {
			t.Errorf("%s: in a revocation list: %v", name, err)
		}
	}
	// `openssl pkcs12 -nodes` writes chain and key to one file, with text between them.
	parsed, err := certs.NewCertificate(certs.CertificateSource{KeyInChain: true, Chain: join(latin1, issued.ChainPEM, latin1, ca.CertPEM(), latin1, issued.KeyPEM)})
	if err != nil || !parsed.Matches("a.test") {
		t.Errorf("everything in one file: %v", err)
	}
	parameters := block("X9.42 DH PARAMETERS", []byte("x"))
	if _, err := certs.NewCertificate(certs.CertificateSource{KeyInChain: true, Chain: join(issued.ChainPEM, parameters, issued.KeyPEM)}); err != nil {
		t.Errorf("with parameters: %v", err)
	}
}

func inUTF16(text []byte) []byte {
	var out []byte
	for _, u := range utf16.Encode([]rune(string(text))) {
		out = append(out, byte(u), byte(u>>8))
	}
	return out
}

// The error describes the damage to PEM text in a trust bundle, a chain, a key,
// or a file with chain and key.
func TestDamagedPEMIsNamed(t *testing.T) {
	ca := certstest.NewCA(t)
	issued := ca.Server(t, "a.test")
	glue := func(text []byte) []byte { return bytes.TrimSuffix(text, []byte("\n")) }
	replace := func(old, with string) func([]byte) []byte {
		return func(text []byte) []byte { return bytes.ReplaceAll(text, []byte(old), []byte(with)) }
	}
	for _, c := range []struct {
		name  string
		spoil func(text []byte) []byte
		say   string
	}{
		{"glued", func(text []byte) []byte { return join(glue(text), text) }, "on the END line of another"},
		{"indented", func(text []byte) []byte {
			return append([]byte("    "), replace("\n", "\n    ")(glue(text))...)
		}, "is indented"},
		{"escaped line breaks", replace("\n", `\n`), `the two characters \n`},
		{"escaped CRLF", replace("\n", `\r\n`), `the two characters \n`},
		{"one line", replace("\n", " "), "on one line"},
		{"base64 of PEM", func(text []byte) []byte { return []byte(base64.StdEncoding.EncodeToString(text)) }, "base64 of PEM text"},
		{"UTF-16", func(text []byte) []byte { return append([]byte("\xff\xfe"), inUTF16(text)...) }, "UTF-16"},
		{"UTF-16 without a mark", inUTF16, "UTF-16"},
		{"CR alone", replace("\n", "\r"), "CR alone"},
		{"a non-breaking space", func(text []byte) []byte { return append([]byte("\u00a0"), text...) }, "U+00A0 before the BEGIN line"},
		{"a zero-width space", func(text []byte) []byte { return append([]byte("\u200b"), text...) }, "U+200B before the BEGIN line"},
		{"a non-breaking space inside", func(text []byte) []byte {
			i := bytes.IndexByte(text, '\n')
			return join(text[:i+9], []byte("\u00a0"), text[i+9:])
		}, "character U+00A0, which is not base64"},
		{"typographic dashes", replace("-----", "—–—"), "typographic dashes"},
		{"base64 on the BEGIN line", func(text []byte) []byte { return bytes.Replace(text, []byte("-----\n"), []byte("----- "), 1) }, "other text on the BEGIN line"},
		{"a Java keystore", func([]byte) []byte { return append([]byte("\xfe\xed\xfe\xed\x00\x00\x00\x02"), make([]byte, 99)...) }, "keytool -importkeystore"},
	} {
		t.Run(c.name, func(t *testing.T) {
			check := func(where string, err error, field string) {
				t.Helper()
				if p := wantFault(t, err, field).Problem; !strings.Contains(p, c.say) {
					t.Errorf("%s: %s", where, p)
				}
				checkSecrets(t, err.Error(), issued.KeyPEM)
			}
			_, err := certs.ParseTrustBundle(c.spoil(ca.CertPEM()))
			check("trust bundle", err, "")
			_, err = certs.ParseCertificate(c.spoil(issued.ChainPEM), issued.KeyPEM)
			check("chain", err, "certificate_chain")
			_, err = certs.ParseCertificate(issued.ChainPEM, c.spoil(issued.KeyPEM))
			check("key", err, "private_key")
			_, err = certs.NewCertificate(certs.CertificateSource{KeyInChain: true, Chain: c.spoil(join(issued.ChainPEM, issued.KeyPEM))})
			check("one file", err, "certificate_chain")
		})
	}
}

func TestSwappedFilesAreNamed(t *testing.T) {
	issued := certstest.NewCA(t).Server(t, "a.test")
	_, err := certs.NewCertificate(certs.CertificateSource{KeyInChain: true, Chain: issued.KeyPEM, Key: issued.ChainPEM})
	if p := wantFault(t, err, "certificate_chain").Problem; !strings.Contains(p, "swapped") {
		t.Error(p)
	}
}

func TestFilesGivenInPlaceOfAnArchiveAreNamed(t *testing.T) {
	issued := certstest.NewCA(t).Server(t, "a.test")
	archive := archive(t, issued, "pw", "")
	for say, data := range map[string][]byte{
		"keytool -importkeystore":     append([]byte("\xce\xce\xce\xce\x00\x00\x00\x02"), make([]byte, 99)...),
		"is PEM text":                 issued.ChainPEM,
		"the base64 of a PKCS#12":     []byte(base64.StdEncoding.EncodeToString(archive) + "\n"),
		"cannot be parsed: want a PK": []byte("garbage"),
	} {
		_, err := certs.NewCertificate(certs.CertificateSource{PKCS12: data, Passphrase: []byte("pw")})
		if p := wantFault(t, err, "pkcs12").Problem; !strings.Contains(p, say) {
			t.Errorf("want %q: %s", say, p)
		}
	}
}

// Editors save passphrase files with a byte order mark.
func TestPassphraseWithAByteOrderMark(t *testing.T) {
	issued := certstest.NewCA(t).Server(t, "a.test")
	key := byOpenSSL(t, issued.KeyPEM, "pkcs8 -topk8 -passout pass:pw")
	archive := archive(t, issued, "pw", "")
	for say, passphrase := range map[string][]byte{
		"save the file without it":          []byte("\xef\xbb\xbfpw"),
		"save it as UTF-8 without the mark": append([]byte("\xff\xfe"), inUTF16([]byte("pw"))...),
	} {
		for _, source := range []certs.CertificateSource{{Chain: issued.ChainPEM, Key: key}, {PKCS12: archive}} {
			source.Passphrase = passphrase
			_, err := certs.NewCertificate(source)
			if p := wantFault(t, err, "passphrase").Problem; !strings.Contains(p, "byte order mark") || !strings.Contains(p, say) {
				t.Error(p)
			}
		}
	}
	_, err := certs.NewCertificate(certs.CertificateSource{Chain: issued.ChainPEM, Key: key, Passphrase: []byte("wrong")})
	if p := wantFault(t, err, "passphrase").Problem; strings.Contains(p, "byte order mark") {
		t.Errorf("a wrong passphrase: %s", p)
	}
}

// Errors name the kinds of keys and certificates that OpenSSL makes and this
// program does not support.
func TestUnsupportedKeysAreNamed(t *testing.T) {
	chain := certstest.NewCA(t).Server(t, "a.test").ChainPEM
	explicit := "genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -pkeyopt ec_param_enc:explicit"
	for _, c := range []struct{ generate, say string }{
		{"genpkey -algorithm RSA-PSS -pkeyopt rsa_keygen_bits:2048", "is an RSA-PSS key"},
		{explicit, "explicit curve parameters"},
		{"genpkey -algorithm EC -pkeyopt ec_paramgen_curve:brainpoolP256r1", "ECDSA brainpoolP256r1"},
		{"genpkey -algorithm EC -pkeyopt ec_paramgen_curve:secp256k1", "ECDSA secp256k1"},
		{"genpkey -algorithm ED448", "Ed448"},
	} {
		key := byOpenSSL(t, nil, c.generate)
		forms := [][]byte{key, byOpenSSL(t, key, "pkcs8 -topk8 -passout pass:pw")}
		if c.generate == explicit {
			forms = append(forms, byOpenSSL(t, key, "ec -param_enc explicit")) // SEC1
		}
		for _, key := range forms {
			_, err := certs.NewCertificate(certs.CertificateSource{Chain: chain, Key: key, Passphrase: []byte("pw")})
			if p := wantFault(t, err, "private_key").Problem; !strings.Contains(p, c.say) {
				t.Errorf("%s: %s", c.generate, p)
			}
			checkSecrets(t, err.Error(), key)
		}
	}
	t.Run("certificates", func(t *testing.T) {
		_, err := certs.ParseTrustBundle(selfSignedBy(t, byOpenSSL(t, nil, explicit)))
		if p := wantFault(t, err, "").Problem; !strings.Contains(p, "explicit curve parameters") {
			t.Error(p)
		}
		for kind, generate := range map[string]string{"RSA-PSS": "genpkey -algorithm RSA-PSS -pkeyopt rsa_keygen_bits:2048", "Ed448": "genpkey -algorithm ED448"} {
			_, err = certs.ParseCertificate(selfSignedBy(t, byOpenSSL(t, nil, generate)), certstest.NewCA(t).Server(t, "b.test").KeyPEM)
			if p := wantFault(t, err, "private_key").Problem; !strings.Contains(p, "its key is "+kind) {
				t.Error(p)
			}
		}
	})
}
