package certs_test

import (
	"bytes"
	"crypto/x509"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"software.sslmate.com/src/go-pkcs12"

	"github.com/drawbridge-gateway/drawbridge/certs"
	"github.com/drawbridge-gateway/drawbridge/certs/certstest"
	"github.com/drawbridge-gateway/drawbridge/certs/pki"
)

// archive makes a PKCS#12 archive of a certificate, its intermediate and its
// key with OpenSSL.
func archive(t testing.TB, issued *pki.Issued, passphrase, args string) []byte {
	t.Helper()
	all := append([]string{"pkcs12", "-export", "-passout", "pass:" + passphrase}, strings.Fields(args)...)
	return run(t, join(issued.KeyPEM, issued.ChainPEM), "openssl", all...)
}

// NewCertificate reads every useful archive format that OpenSSL writes.
func TestPKCS12OfOpenSSL(t *testing.T) {
	root := certstest.NewCA(t)
	issued := root.Intermediate(t).Server(t, "a.test")
	for _, c := range []struct{ name, passphrase, args string }{
		{"modern", secret, ""},
		{"old: RC2, 3DES, SHA-1", secret, "-legacy"},
		{"old, with one round", secret, "-legacy -noiter -nomaciter"},
		{"3DES for key and certificates", secret, "-descert"},
		{"AES of two sizes", secret, "-keypbe AES-128-CBC -certpbe AES-192-CBC"},
		{"a MAC of SHA-1", secret, "-macalg sha1"},
		{"a MAC of SHA-512", secret, "-macalg sha512"},
		{"unencrypted certificates", secret, "-certpbe NONE"},
		{"a MAC and no encryption", secret, "-certpbe NONE -keypbe NONE"},
		{"many rounds", secret, "-iter 300000"},
		{"names", secret, "-name friendly -caname above"},
		{"a passphrase of Unicode", "pä€ß", ""},
		{"a legacy archive with a Unicode passphrase", "pä€ß", "-legacy"},
		{"an empty passphrase", "", ""},
		{"a legacy archive with an empty passphrase", "", "-legacy"},
		{"an empty passphrase without a MAC", "", "-nomac"},
		{"nothing encrypted", "", "-nomac -certpbe NONE -keypbe NONE"},
	} {
		t.Run(c.name, func(t *testing.T) {
			data := archive(t, issued, c.passphrase, c.args)
			parsed, err := certs.NewCertificate(certs.CertificateSource{PKCS12: data, Passphrase: []byte(c.passphrase)})
			if err != nil {
				t.Fatal(err)
			}
			if info := parsed.Info(); info.ChainLength != 2 || !parsed.Matches("a.test") || len(info.Findings) != 0 {
				t.Errorf("info %+v", info)
			}
			// The content of a file determines its type.
			if _, err := certs.NewCertificate(certs.CertificateSource{Chain: data, KeyInChain: true, Passphrase: []byte(c.passphrase)}); err != nil {
				t.Errorf("as a file: %v", err)
			}
			for _, wrong := range []string{"wrong", ""} {
				parsed, err := certs.NewCertificate(certs.CertificateSource{PKCS12: data, Passphrase: []byte(wrong)})
				switch {
				case wrong == c.passphrase:
				case c.name == "nothing encrypted":
					if f := parsed.Info().Findings; len(f) != 1 || f[0] != certs.FindingUnneededPassphrase {
						t.Errorf("findings %v", f)
					}
				case c.name == "an empty passphrase without a MAC":
					wantFault(t, err, "pkcs12")
				default:
					p := wantFault(t, err, "passphrase").Problem
					if missing := strings.Contains(p, "is missing"); missing != (wrong == "") {
						t.Errorf("with passphrase %q: %s", wrong, p)
					}
					checkSecrets(t, err.Error(), issued.KeyPEM, []byte(secret))
				}
			}
		})
	}
}

func TestPKCS12OfJava(t *testing.T) {
	dir := t.TempDir()
	keystore := func(name string, flags ...string) []byte {
		file := filepath.Join(dir, name)
		args := append(strings.Fields("-genkeypair -alias a -dname CN=a.test -ext san=dns:a.test -storetype PKCS12 -storepass changeit -keystore"), file)
		run(t, nil, "keytool", append(args, flags...)...)
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	modern := keystore("modern.p12", "-keyalg", "EC", "-groupname", "secp256r1")
	old := keystore("old.p12", "-keyalg", "RSA", "-keysize", "2048", "-J-Dkeystore.pkcs12.legacy")
	for name, data := range map[string][]byte{"modern": modern, "old": old} {
		c, err := certs.NewCertificate(certs.CertificateSource{PKCS12: data, Passphrase: []byte("changeit")})
		if err != nil || !c.Matches("a.test") {
			t.Errorf("%s: %v", name, err)
		}
	}
	run(t, nil, "keytool", strings.Fields("-genkeypair -alias b -dname CN=b.test -storetype PKCS12 -storepass changeit -keyalg EC -groupname secp256r1 -keystore "+filepath.Join(dir, "modern.p12"))...)
	two, err := os.ReadFile(filepath.Join(dir, "modern.p12"))
	if err != nil {
		t.Fatal(err)
	}
	_, err = certs.NewCertificate(certs.CertificateSource{PKCS12: two, Passphrase: []byte("changeit")})
	if p := wantFault(t, err, "pkcs12").Problem; !strings.Contains(p, "more than one private key") {
		t.Error(p)
	}
}

// PBMAC1 is specified in RFC 9579. OpenSSL supports it from 3.4, and Java from
// 26.
func TestPKCS12WithPBMAC1(t *testing.T) {
	issued := certstest.NewCA(t).Server(t, "a.test")
	data, err := pkcs12.Modern2026.Encode(certstest.TLS(t, issued).PrivateKey, issued.Leaf, nil, secret)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := certs.NewCertificate(certs.CertificateSource{PKCS12: data, Passphrase: []byte(secret)}); err != nil {
		t.Error(err)
	}
	costly, err := pkcs12.Modern2026.WithIterations(1_000_000).Encode(certstest.TLS(t, issued).PrivateKey, issued.Leaf, nil, secret)
	if err != nil {
		t.Fatal(err)
	}
	_, err = certs.NewCertificate(certs.CertificateSource{PKCS12: costly, Passphrase: []byte(secret)})
	wantFault(t, err, "pkcs12")
}

func TestPKCS12Refused(t *testing.T) {
	root := certstest.NewCA(t)
	issued := root.Server(t, "a.test")
	good := archive(t, issued, secret, "")
	only := func(flag string) []byte {
		return run(t, join(issued.KeyPEM, issued.ChainPEM), "openssl", "pkcs12", "-export", flag, "-passout", "pass:"+secret)
	}
	// ber is BER with an outer element of indefinite length.
	ber := join([]byte{0x30, 0x80}, good[4:], []byte{0, 0})
	damaged := bytes.Clone(good)
	damaged[len(damaged)-10] ^= 1 // a bit of the MAC's salt
	other := root.Server(t, "b.test")
	mismatch, err := pkcs12.Modern.Encode(certstest.TLS(t, other).PrivateKey, issued.Leaf, nil, secret)
	if err != nil {
		t.Fatal(err)
	}
	many, err := pkcs12.Modern.Encode(certstest.TLS(t, issued).PrivateKey, issued.Leaf, slices.Repeat([]*x509.Certificate{root.Certificate()}, 16), secret)
	if err != nil {
		t.Fatal(err)
	}
	type source = certs.CertificateSource
	for _, c := range []struct {
		name   string
		source source
		field  string
		say    string
	}{
		{"garbage", source{PKCS12: []byte("garbage")}, "pkcs12", "cannot be parsed"},
		{"PEM", source{PKCS12: issued.ChainPEM}, "pkcs12", "is PEM text"},
		{"a certificate", source{PKCS12: issued.Leaf.Raw}, "pkcs12", "cannot be parsed"},
		{"half an archive", source{PKCS12: good[:len(good)/2]}, "pkcs12", "cannot be parsed"},
		{"trailing bytes", source{PKCS12: join(good, []byte{0})}, "pkcs12", "cannot be parsed"},
		{"too long", source{PKCS12: make([]byte, 5<<20)}, "pkcs12", "at most"},
		{"BER", source{PKCS12: ber}, "pkcs12", "in BER"},
		{"one bit changed", source{PKCS12: damaged}, "passphrase", "is not the one"},
		{"no key", source{PKCS12: only("-nokeys")}, "pkcs12", "holds no private key"},
		{"no certificate", source{PKCS12: only("-nocerts")}, "pkcs12", "holds no certificate"},
		{"the key of another certificate", source{PKCS12: mismatch}, "pkcs12", "is not the key of"},
		{"too many certificates", source{PKCS12: many}, "pkcs12", "more than 16"},
		{"no MAC", source{PKCS12: archive(t, issued, secret, "-nomac")}, "pkcs12", "no MAC"},
		{"a MAC that is not supported", source{PKCS12: archive(t, issued, secret, "-macalg sha384")}, "pkcs12", "not supported"},
		{"3DES under PBES2", source{PKCS12: archive(t, issued, secret, "-keypbe DES-EDE3-CBC")}, "pkcs12", "not supported"},
		{"too many rounds", source{PKCS12: archive(t, issued, secret, "-iter 1500000")}, "pkcs12", "rounds"},
		{"an archive and a chain", source{PKCS12: good, Chain: issued.ChainPEM}, "pkcs12", "cannot be combined"},
		{"an archive as a chain", source{Chain: good, Key: issued.KeyPEM}, "certificate_chain", "is a PKCS#12 archive"},
		{"an archive as a key", source{Chain: issued.ChainPEM, Key: good}, "private_key", "is a PKCS#12 archive"},
		{"a passphrase that is not UTF-8", source{PKCS12: good, Passphrase: []byte("\xff")}, "passphrase", "UTF-8"},
		{"a passphrase with unsupported characters", source{PKCS12: good, Passphrase: []byte("😀")}, "passphrase", "cannot represent"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.source.Passphrase == nil {
				c.source.Passphrase = []byte(secret)
			}
			_, err := certs.NewCertificate(c.source)
			if p := wantFault(t, err, c.field).Problem; !strings.Contains(p, c.say) {
				t.Errorf("problem %q", p)
			}
			checkFaults(t, err)
			checkSecrets(t, err.Error(), issued.KeyPEM, []byte(secret))
		})
	}
}

// A wrong passphrase is reported even if decryption seems to succeed, as it
// does for one in 256.
func TestPKCS12WithEveryWrongPassphrase(t *testing.T) {
	issued := certstest.NewCA(t).Server(t, "a.test")
	data, err := pkcs12.Modern2023.WithIterations(1).Encode(certstest.TLS(t, issued).PrivateKey, issued.Leaf, nil, secret)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 2000 {
		wrong := fmt.Appendf(nil, "wrong %d", i)
		_, err := certs.NewCertificate(certs.CertificateSource{PKCS12: data, Passphrase: wrong})
		wantFault(t, err, "passphrase")
	}
}

// An archive with a changed bit is rejected, or holds the original certificate.
func TestPKCS12WithABitChanged(t *testing.T) {
	issued := certstest.NewCA(t).Server(t, "a.test")
	good := archive(t, issued, secret, "-iter 1")
	for at := 0; at < len(good); at += 3 {
		data := bytes.Clone(good)
		data[at] ^= 4
		c, err := certs.NewCertificate(certs.CertificateSource{PKCS12: data, Passphrase: []byte(secret)})
		if err == nil && !c.Leaf().Equal(issued.Leaf) {
			t.Fatalf("at %d: another certificate", at)
		}
		if err != nil {
			checkFaults(t, err)
		}
	}
}
