package certs_test

import (
	"crypto/tls"
	"crypto/x509"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/drawbridge-gateway/drawbridge/certs"
	"github.com/drawbridge-gateway/drawbridge/certs/certstest"
	"github.com/drawbridge-gateway/drawbridge/certs/pki"
)

func TestParseTrustBundleRefuses(t *testing.T) {
	ca := certstest.NewCA(t)
	issued := ca.Server(t, "a.test")
	now := time.Now()
	old, err := pki.NewRoot(pki.CAOptions{NotBefore: now.Add(-2 * time.Hour), NotAfter: now.Add(-time.Hour)})
	if err != nil {
		t.Fatal(err)
	}
	forged := *selfSigned(t, func(*x509.Certificate) {}).Leaf
	forged.Raw[len(forged.Raw)-1] ^= 1 // the certificate is no longer self-signed
	for _, c := range []struct {
		name, field, say string
		text             []byte
	}{
		{"no bytes", "", "is empty", nil},
		{"only blanks", "", "is empty", []byte("\n\n")},
		{"garbage", "", "no PEM block", []byte("not a certificate")},
		{"a leaf", "[0]", "not a CA certificate", issued.ChainPEM},
		{"a leaf among CAs", "[1]", "want the certificate of its issuer", join(ca.CertPEM(), issued.ChainPEM)},
		{"a leaf that names itself as its issuer", "[0]", "not a CA certificate", block("CERTIFICATE", forged.Raw)},
		{"a private key", "", "private key", join(ca.CertPEM(), issued.KeyPEM)},
		{"a CRL", "", `type "X509 CRL"`, join(ca.CertPEM(), block("X509 CRL", []byte("x")))},
		{"OpenSSL's own form", "", "openssl x509", block("TRUSTED CERTIFICATE", ca.Certificate().Raw)},
		{"only expired ones", "", "has expired", old.CertPEM()},
		{"binary data between blocks", "", "binary", join(ca.CertPEM(), []byte{0x30, 0x82, 0x01, 0x00, '\n'}, ca.CertPEM())},
		{"bytes before a block", "", "not UTF-8", join(ca.CertPEM(), []byte{0xff, 0xfe}, ca.CertPEM())},
		{"a damaged block between", "", "after 1 certificate", join(ca.CertPEM(), []byte("-----BEGIN CERTIFICATE-----\n!!\n-----END CERTIFICATE-----\n"), ca.CertPEM())},
		{"a block cut off", "", "damaged", join(ca.CertPEM(), ca.CertPEM()[:200])},
	} {
		t.Run(c.name, func(t *testing.T) {
			b, err := certs.ParseTrustBundle(c.text)
			if b != nil {
				t.Error("a bundle was returned")
			}
			if f := wantFault(t, err, c.field); !strings.Contains(f.Problem, c.say) {
				t.Errorf("problem %q does not say %q", f.Problem, c.say)
			}
			checkText(t, err.Error())
		})
	}
}

func TestParseTrustBundleAccepts(t *testing.T) {
	a, b := certstest.NewCA(t), certstest.NewCA(t)
	now := time.Now()
	old, err := pki.NewRoot(pki.CAOptions{CommonName: "old", NotBefore: now.Add(-2 * time.Hour), NotAfter: now.Add(-time.Hour)})
	if err != nil {
		t.Fatal(err)
	}
	self := selfSigned(t, func(*x509.Certificate) {})
	for _, c := range []struct {
		name  string
		text  []byte
		count int
		warn  string
	}{
		{"one CA", a.CertPEM(), 1, ""},
		{"two CAs", join(a.CertPEM(), b.CertPEM()), 2, ""},
		{"the same twice", join(a.CertPEM(), a.CertPEM()), 1, "more than once"},
		{"an intermediate", a.Intermediate(t).CertPEM(), 1, ""},
		{"an expired one beside another", join(old.CertPEM(), a.CertPEM()), 2, "it expired"},
		{"a self-signed server", block("CERTIFICATE", self.Certificate[0]), 1, "verifies only itself"},
		{"headings as in curl's file", join([]byte("##\n## Bundle of CA Root Certificates\n##\n\nA Root\n======\n"), a.CertPEM(), []byte("\nB Root\n"+strings.Repeat("=", 60)+"\n"), b.CertPEM()), 2, ""},
		{"CRLF line ends", []byte(strings.ReplaceAll(string(a.CertPEM()), "\n", "\r\n")), 1, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			bundle, err := certs.ParseTrustBundle(c.text)
			if err != nil {
				t.Fatal(err)
			}
			infos := bundle.Infos()
			if bundle.Count() != c.count || len(infos) != c.count {
				t.Errorf("%d certificates, %d infos", bundle.Count(), len(infos))
			}
			var all []string
			for _, i := range infos {
				all = append(all, i.Warnings...)
			}
			if got := strings.Join(all, "; "); (c.warn == "") != (got == "") || !strings.Contains(got, c.warn) {
				t.Errorf("warnings %q, want %q", got, c.warn)
			}
		})
	}
}

func TestTrustBundleEqual(t *testing.T) {
	a, b := certstest.NewCA(t), certstest.NewCA(t)
	ab := parseTrust(t, join(a.CertPEM(), b.CertPEM()))
	ba := parseTrust(t, join(b.CertPEM(), []byte("# text\n"), a.CertPEM(), b.CertPEM()))
	var none *certs.TrustBundle
	for _, c := range []struct {
		name string
		x, y *certs.TrustBundle
		want bool
	}{
		{"the same bundle", ab, ab, true},
		{"in another order", ab, ba, true},
		{"fewer CAs", ab, a.Trust(t), false},
		{"different CAs", a.Trust(t), b.Trust(t), false},
		{"a nil bundle", ab, none, false},
		{"two nil bundles", none, none, true},
	} {
		if c.x.Equal(c.y) != c.want || c.y.Equal(c.x) != c.want {
			t.Errorf("%s: not %v", c.name, c.want)
		}
	}
}

func TestSystemTrustBundle(t *testing.T) {
	a, b := certstest.NewCA(t), certstest.NewCA(t)
	dir := t.TempDir()
	file, roots := filepath.Join(dir, "file.pem"), filepath.Join(dir, "roots")
	if err := os.Mkdir(roots, 0o700); err != nil {
		t.Fatal(err)
	}
	write := func(path string, text []byte) {
		t.Helper()
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(file, a.CertPEM())
	write(filepath.Join(roots, "b.0"), b.CertPEM())
	write(filepath.Join(roots, "rubbish"), []byte("rubbish"))
	t.Setenv("SSL_CERT_DIR", roots)

	t.Setenv("SSL_CERT_FILE", file)
	got, err := certs.SystemTrustBundle()
	if err != nil || !got.Equal(a.Trust(t)) {
		t.Errorf("from the file: %v", err)
	}
	write(file, join(a.CertPEM(), b.CertPEM()))
	if got, err = certs.SystemTrustBundle(); err != nil || got.Count() != 2 {
		t.Errorf("from the changed file: %v", err)
	}
	t.Setenv("SSL_CERT_FILE", filepath.Join(dir, "no such file"))
	if got, err = certs.SystemTrustBundle(); err != nil || !got.Equal(b.Trust(t)) {
		t.Errorf("from the directory: %v", err)
	}

	// The client's default trust is the system's.
	s := serveConfig(t, &tls.Config{Certificates: []tls.Certificate{certstest.TLS(t, b.Server(t, "upstream.test"))}})
	if _, err := connect(t, newClient(t, certs.ClientOptions{ServerName: "upstream.test"}), s.addr); err != nil {
		t.Error(err)
	}

	t.Setenv("SSL_CERT_DIR", filepath.Join(dir, "no such directory"))
	if _, err := certs.SystemTrustBundle(); err == nil || !strings.Contains(err.Error(), "ca-certificates") {
		t.Errorf("without any files: %v", err)
	}
	_, err = certs.NewClient(certs.ClientOptions{ServerName: "upstream.test"})
	wantFault(t, err, "trust_bundles")
}
