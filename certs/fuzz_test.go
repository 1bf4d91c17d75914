package certs_test

import (
	"bytes"
	"encoding/pem"
	"errors"
	"strings"
	"testing"
	"unicode/utf8"

	"software.sslmate.com/src/go-pkcs12"

	"github.com/drawbridge-gateway/drawbridge/certs"
	"github.com/drawbridge-gateway/drawbridge/certs/certstest"
)

// checkFaults fails the test unless an error is nil or Faults that are safe to
// show.
func checkFaults(t *testing.T, err error) {
	t.Helper()
	if err == nil {
		return
	}
	var faults certs.Faults
	if !errors.As(err, &faults) || len(faults) == 0 {
		t.Fatalf("error %v is not Faults", err)
	}
	for _, f := range faults[:min(len(faults), 10)] {
		if f.Problem == "" || !utf8.ValidString(f.Problem) {
			t.Errorf("problem %q", f.Problem)
		}
		checkText(t, f.Problem)
	}
}

func FuzzParseCertificate(f *testing.F) {
	ca := certstest.NewCA(f)
	issued := ca.Intermediate(f).Server(f, "a.test")
	f.Add(issued.ChainPEM, issued.KeyPEM)
	f.Add(append(ca.CertPEM(), issued.ChainPEM...), issued.KeyPEM)
	f.Add(issued.KeyPEM, issued.ChainPEM)
	f.Add([]byte(nil), []byte("-----BEGIN PRIVATE KEY-----\n-----END PRIVATE KEY-----\n"))
	f.Add([]byte("-----BEGIN CERTIFICATE-----"), []byte("-----BEGIN EC PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n\nAAAA\n-----END EC PRIVATE KEY-----\n"))
	f.Fuzz(func(t *testing.T, chain, key []byte) {
		c, err := certs.ParseCertificate(chain, key)
		checkFaults(t, err)
		if err != nil {
			// No part of a readable key may appear in an error.
			if block, _ := pem.Decode(key); block != nil && len(block.Bytes) > 20 && strings.Contains(err.Error(), string(block.Bytes[8:20])) {
				t.Error("the error holds the key")
			}
			return
		}
		checkDescribed(t, c)
	})
}

// FuzzEncryptedKey tests keys in DER and PEM, encrypted or not, with a right
// or wrong passphrase.
func FuzzEncryptedKey(f *testing.F) {
	issued := certstest.NewCA(f).Server(f, "a.test")
	chain := issued.ChainPEM
	for _, args := range []string{
		"pkcs8 -topk8 -passout pass:pw -iter 1", "pkcs8 -topk8 -passout pass:pw -iter 1 -outform DER", "pkcs8 -topk8 -v2 des3 -passout pass:pw -iter 1",
		"pkcs8 -topk8 -scrypt -scrypt_N 2 -passout pass:pw -outform DER", "ec -aes128 -passout pass:pw", "ec -outform DER", "pkey -outform DER",
		"pkcs8 -topk8 -v1 PBE-SHA1-3DES -passout pass:pw",
	} {
		f.Add(byOpenSSL(f, issued.KeyPEM, args), "pw")
		f.Add(byOpenSSL(f, issued.KeyPEM, args), "wrong")
	}
	f.Add([]byte("0\x80"), "")
	f.Fuzz(func(t *testing.T, key []byte, passphrase string) {
		_, err := certs.NewCertificate(certs.CertificateSource{Chain: chain, Key: key, Passphrase: []byte(passphrase)})
		checkFaults(t, err)
		checkRevealsNothing(t, err, key, []byte(passphrase))
	})
}

// FuzzCertificateFile tests files with arbitrary content.
func FuzzCertificateFile(f *testing.F) {
	ca := certstest.NewCA(f)
	issued := ca.Intermediate(f).Server(f, "a.test")
	f.Add(join(issued.KeyPEM, issued.ChainPEM), "")
	f.Add(join(issued.ChainPEM, byOpenSSL(f, issued.KeyPEM, "pkcs8 -topk8 -passout pass:pw -iter 1")), "pw")
	f.Add(join(issued.Leaf.Raw, ca.Certificate().Raw), "")
	f.Add(issued.Leaf.Raw, "")
	f.Add([]byte("\xef\xbb\xbf-----BEGIN DH PARAMETERS-----\n-----END DH PARAMETERS-----\n"), "")
	f.Add(archive(f, issued, "pw", "-iter 1"), "pw")
	f.Fuzz(func(t *testing.T, file []byte, passphrase string) {
		c, err := certs.NewCertificate(certs.CertificateSource{Chain: file, KeyInChain: true, Passphrase: []byte(passphrase)})
		checkFaults(t, err)
		checkRevealsNothing(t, err, file, []byte(passphrase))
		if err == nil {
			checkDescribed(t, c)
		}
	})
}

func FuzzPKCS12(f *testing.F) {
	issued := certstest.NewCA(f).Intermediate(f).Server(f, "a.test")
	for _, args := range []string{"-iter 1", "-legacy -noiter -nomaciter", "-certpbe NONE -keypbe NONE", "-nomac -iter 1", "-iter 1 -macalg sha512"} {
		f.Add(archive(f, issued, "pw", args), "pw")
		f.Add(archive(f, issued, "", args), "")
	}
	modern, err := pkcs12.Modern2026.WithIterations(1).Encode(certstest.TLS(f, issued).PrivateKey, issued.Leaf, nil, "pw")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(modern, "pw")
	f.Add([]byte("0\x80\x02\x01\x030\x80"), "")
	f.Fuzz(func(t *testing.T, data []byte, passphrase string) {
		if len(data) == 0 {
			return
		}
		c, err := certs.NewCertificate(certs.CertificateSource{PKCS12: data, Passphrase: []byte(passphrase)})
		checkFaults(t, err)
		checkRevealsNothing(t, err, data, []byte(passphrase))
		if err == nil {
			checkDescribed(t, c)
		}
	})
}

// checkRevealsNothing fails the test if an error contains a part of a key or
// archive, in PEM or DER, or a passphrase, unless the part is also a word of
// the error text.
func checkRevealsNothing(t *testing.T, err error, key, passphrase []byte) {
	t.Helper()
	if err == nil {
		return
	}
	text := err.Error()
	if len(passphrase) >= 12 && strings.Contains(text, string(passphrase)) && !bytes.Contains(key, passphrase) {
		t.Error("the error holds the passphrase")
	}
	for rest := key; ; {
		var b *pem.Block
		if b, rest = pem.Decode(rest); b == nil {
			break
		}
		if b.Type == "CERTIFICATE" || !strings.Contains(b.Type, "PRIVATE KEY") {
			continue
		}
		checkSecrets(t, text, pem.EncodeToMemory(b))
		if len(b.Bytes) > 20 && strings.Contains(text, string(b.Bytes[8:20])) {
			t.Error("the error holds the key")
		}
	}
	if strings.Contains(text, "PRIVATE KEY") {
		t.Errorf("the error names a PEM block of a private key: %s", text)
	}
}

func checkDescribed(t *testing.T, c *certs.Certificate) {
	t.Helper()
	if info := c.Info(); info.ChainLength < 1 || len(info.SHA256Fingerprint) != 64 || c.Leaf() == nil || len(info.Warnings) != len(info.Findings) {
		t.Errorf("info %+v", info)
	}
	for _, u := range []certs.Use{certs.AsClient, certs.AsServer} {
		if f, w := c.UseFindings(u); len(f) != len(w) {
			t.Errorf("findings %v, warnings %q", f, w)
		}
	}
}

func FuzzParseTrustBundle(f *testing.F) {
	ca := certstest.NewCA(f)
	f.Add(ca.CertPEM())
	f.Add(append([]byte("# text\n"), ca.CertPEM()...))
	f.Add(ca.Server(f, "a.test").ChainPEM)
	f.Add([]byte("-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n"))
	f.Add([]byte("-----BEGIN CERTIFICATE-----\nMAA=\n-----END X-----\n-----END CERTIFICATE-----"))
	f.Fuzz(func(t *testing.T, text []byte) {
		b, err := certs.ParseTrustBundle(text)
		checkFaults(t, err)
		if err == nil && (b.Count() == 0 || len(b.Infos()) != b.Count() || !b.Equal(b)) {
			t.Errorf("a bundle of %d", b.Count())
		}
	})
}

func FuzzParseCipherSuites(f *testing.F) {
	for _, s := range []string{
		"HIGH:!aNULL:!MD5", "ECDHE+AESGCM:@STRENGTH", "-:+:!", "@", "+", "A+B+", "TLS_AES_128_GCM_SHA256", "ALL:-ALL:kRSA",
		"\x00\xff", "ECDHE-RSA-AES128-GCM-SHA256,,; ", "@SECLEVEL=\n",
	} {
		f.Add(s, "HIGH")
	}
	f.Fuzz(func(t *testing.T, a, b string) {
		ids, warnings, err := certs.ParseCipherSuites([]string{a, b})
		checkFaults(t, err)
		if (err == nil) != (len(ids) > 0) {
			t.Errorf("%d suites, error %v", len(ids), err)
		}
		seen := make(map[uint16]bool)
		for _, id := range ids {
			if seen[id] {
				t.Errorf("%x twice", id)
			}
			seen[id] = true
		}
		for _, w := range warnings {
			if strings.ContainsAny(w, "\n\r\x1b\x00") || !utf8.ValidString(w) {
				t.Errorf("warning %q", w)
			}
		}
	})
}
