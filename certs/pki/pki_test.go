package pki_test

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/drawbridge-gateway/drawbridge/certs/pki"
)

func newRoot(t *testing.T) *pki.CA {
	t.Helper()
	ca, err := pki.NewRoot(pki.CAOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return ca
}

func newIntermediate(t *testing.T, ca *pki.CA) *pki.CA {
	t.Helper()
	below, err := ca.NewIntermediate(pki.CAOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return below
}

func TestIssue(t *testing.T) {
	root := newRoot(t)
	mid := newIntermediate(t, root)
	for _, c := range []struct {
		name  string
		ca    *pki.CA
		o     pki.LeafOptions
		cn    string
		use   []x509.ExtKeyUsage
		chain int
	}{
		{"a server", root, pki.LeafOptions{DNSNames: []string{"A.test", "*.b.test"}, IPs: []net.IP{net.IPv4(10, 0, 0, 1), net.IPv6loopback}},
			"a.test", []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}, 1},
		{"below an intermediate", mid, pki.LeafOptions{DNSNames: []string{"a.test"}}, "a.test", []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}, 2},
		{"a client", mid, pki.LeafOptions{Usage: pki.Client, CommonName: "gateway"}, "gateway", []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}, 2},
		{"a server that is also a client", root, pki.LeafOptions{Usage: pki.Both, IPs: []net.IP{net.IPv4(10, 0, 0, 1)}}, "10.0.0.1",
			[]x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}, 1},
		{"a URI", root, pki.LeafOptions{Usage: pki.Client, URIs: []string{"spiffe://corp.test/gateway"}}, "", []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}, 1},
		{"RSA", root, pki.LeafOptions{DNSNames: []string{"a.test"}, Key: pki.RSA2048}, "a.test", []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}, 1},
		{"Ed25519", root, pki.LeafOptions{DNSNames: []string{"a.test"}, Key: pki.Ed25519}, "a.test", []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			issued, err := c.ca.Issue(c.o)
			if err != nil {
				t.Fatal(err)
			}
			pair, err := tls.X509KeyPair(issued.ChainPEM, issued.KeyPEM)
			if err != nil {
				t.Fatal(err)
			}
			if len(pair.Certificate) != c.chain || !bytes.Equal(pair.Certificate[0], issued.Leaf.Raw) {
				t.Errorf("%d certificates in the chain", len(pair.Certificate))
			}
			leaf := issued.Leaf
			if leaf.Subject.CommonName != c.cn || !slices.Equal(leaf.ExtKeyUsage, c.use) {
				t.Errorf("for %q, usages %v", leaf.Subject.CommonName, leaf.ExtKeyUsage)
			}
			if leaf.IsCA || !leaf.BasicConstraintsValid || leaf.KeyUsage&x509.KeyUsageDigitalSignature == 0 {
				t.Error("the certificate is not for an end entity")
			}
			if (leaf.KeyUsage&x509.KeyUsageKeyEncipherment != 0) != (c.o.Key == pki.RSA2048) {
				t.Error("exactly RSA keys need the usage keyEncipherment")
			}
			if !bytes.Equal(leaf.AuthorityKeyId, c.ca.Certificate().SubjectKeyId) || len(leaf.SubjectKeyId) != 20 {
				t.Errorf("key identifiers %x %x", leaf.AuthorityKeyId, leaf.SubjectKeyId)
			}
			if n := leaf.SerialNumber.BitLen(); n < 64 || n > 128 {
				t.Errorf("a serial number of %d bits", n)
			}
			roots, between := x509.NewCertPool(), x509.NewCertPool()
			roots.AppendCertsFromPEM(c.ca.RootPEM())
			between.AppendCertsFromPEM(issued.ChainPEM)
			if _, err := leaf.Verify(x509.VerifyOptions{Roots: roots, Intermediates: between, KeyUsages: c.use}); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestIssueRefuses(t *testing.T) {
	ca := newRoot(t)
	now := time.Now()
	for _, c := range []struct {
		name string
		o    pki.LeafOptions
		say  string
	}{
		{"a server without a name", pki.LeafOptions{CommonName: "a.test"}, "needs a DNS name"},
		{"a client without a name", pki.LeafOptions{Usage: pki.Client}, "needs a common name"},
		{"an address as a name", pki.LeafOptions{DNSNames: []string{"10.0.0.1"}}, "IP address"},
		{"an empty name", pki.LeafOptions{DNSNames: []string{""}}, "1 to 253"},
		{"a name with a port", pki.LeafOptions{DNSNames: []string{"a.test:443"}}, "letters, digits"},
		{"a name with a line end", pki.LeafOptions{DNSNames: []string{"a.test\n"}}, `"a.test\n"`},
		{"an empty label", pki.LeafOptions{DNSNames: []string{"a..test"}}, "each label"},
		{"a hyphen first", pki.LeafOptions{DNSNames: []string{"-a.test"}}, "hyphen"},
		{"a wildcard inside a name", pki.LeafOptions{DNSNames: []string{"a.*.test"}}, "letters, digits"},
		{"a bare wildcard", pki.LeafOptions{DNSNames: []string{"*"}}, "letters, digits"},
		{"an incomplete address", pki.LeafOptions{IPs: []net.IP{{1, 2}}}, "4 or 16 bytes"},
		{"an invalid URI", pki.LeafOptions{URIs: []string{"example.com"}}, "spiffe://"},
		{"an unknown usage", pki.LeafOptions{Usage: 9, DNSNames: []string{"a.test"}}, "unknown usage"},
		{"an unknown key type", pki.LeafOptions{Key: 99, DNSNames: []string{"a.test"}}, "unknown key type"},
		{"the end before the start", pki.LeafOptions{DNSNames: []string{"a.test"}, NotAfter: now.Add(-time.Hour)}, "expire before"},
	} {
		if _, err := ca.Issue(c.o); err == nil || !strings.Contains(err.Error(), c.say) {
			t.Errorf("%s: error %v does not say %q", c.name, err, c.say)
		}
	}
}

func TestLifetimes(t *testing.T) {
	now := time.Now()
	near := func(name string, got, want time.Time) {
		t.Helper()
		if d := got.Sub(want).Abs(); d > time.Minute {
			t.Errorf("%s: %s, want %s", name, got, want)
		}
	}
	root := newRoot(t)
	near("root's end", root.Certificate().NotAfter, now.Add(pki.RootLifetime))
	near("intermediate's end", newIntermediate(t, root).Certificate().NotAfter, now.Add(pki.IntermediateLifetime))
	short, err := pki.NewRoot(pki.CAOptions{NotAfter: now.Add(time.Hour)})
	if err != nil {
		t.Fatal(err)
	}
	issued, err := short.Issue(pki.LeafOptions{DNSNames: []string{"a.test"}})
	if err != nil {
		t.Fatal(err)
	}
	near("a leaf's end is no later than its issuer's", issued.Leaf.NotAfter, now.Add(time.Hour))
	near("a leaf's start", issued.Leaf.NotBefore, now.Add(-5*time.Minute))
	from, to := now.Add(-48*time.Hour), now.Add(-24*time.Hour)
	if issued, err = short.Issue(pki.LeafOptions{DNSNames: []string{"a.test"}, NotBefore: from, NotAfter: to}); err != nil {
		t.Fatal(err)
	}
	near("a requested start", issued.Leaf.NotBefore, from)
	near("a requested end", issued.Leaf.NotAfter, to)
}

func TestNames(t *testing.T) {
	for _, name := range pki.KeyTypeNames() {
		k, err := pki.ParseKeyType(strings.ToUpper(name))
		if err != nil || k.String() != name {
			t.Errorf("%s: %v, %v", name, k, err)
		}
	}
	if k, err := pki.ParseKeyType(""); err != nil || k != pki.ECDSAP256 {
		t.Errorf("the default is %v, %v", k, err)
	}
	if _, err := pki.ParseKeyType("rsa-1024"); err == nil || !strings.Contains(err.Error(), "rsa-2048") {
		t.Errorf("rsa-1024: %v", err)
	}
	for u, name := range map[pki.Usage]string{pki.Server: "server", pki.Client: "client", pki.Both: "both"} {
		if u.String() != name {
			t.Errorf("%s: %v", name, u)
		}
	}
}

func TestOnDisk(t *testing.T) {
	for _, c := range []struct {
		name  string
		mid   *pki.CAOptions
		files []string
		chain int
	}{
		{"root", nil, []string{"ca-key.pem", "ca.pem"}, 1},
		{"root and intermediate", &pki.CAOptions{CommonName: "issuing CA"}, []string{"ca-key.pem", "ca.pem", "intermediate-key.pem", "intermediate.pem"}, 2},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "new", "pki")
			made, err := pki.Init(dir, pki.CAOptions{CommonName: "corp root"}, c.mid)
			if err != nil {
				t.Fatal(err)
			}
			if got := files(t, dir); !slices.Equal(got, c.files) {
				t.Errorf("files %v", got)
			}
			ca, err := pki.Load(dir)
			if err != nil {
				t.Fatal(err)
			}
			if !ca.Certificate().Equal(made.Certificate()) || !bytes.Equal(ca.RootPEM(), made.RootPEM()) {
				t.Error("Load returned another CA")
			}
			e, err := ca.IssueTo(dir, "web-1", pki.LeafOptions{DNSNames: []string{"a.test"}})
			if err != nil {
				t.Fatal(err)
			}
			if len(e.Chain) != c.chain || filepath.Base(e.CertPath) != "web-1.pem" || filepath.Base(e.KeyPath) != "web-1-key.pem" {
				t.Errorf("entry %+v", e)
			}
			if _, err := tls.LoadX509KeyPair(e.CertPath, e.KeyPath); err != nil {
				t.Error(err)
			}
			checkModes(t, dir)

			entries, err := pki.List(dir)
			if err != nil {
				t.Fatal(err)
			}
			var names []string
			for _, e := range entries {
				names = append(names, e.Name)
				if e.KeyPath == "" || len(e.Chain) == 0 {
					t.Errorf("entry %+v", e)
				}
			}
			want := []string{"ca", "intermediate", "web-1"}
			if c.mid == nil {
				want = []string{"ca", "web-1"}
			}
			if !slices.Equal(names, want) {
				t.Errorf("listed %v", names)
			}
			if e, err := pki.Show(dir, "web-1"); err != nil || !e.Chain[0].Equal(entries[len(entries)-1].Chain[0]) {
				t.Errorf("shown %+v, %v", e, err)
			}
			if _, err := pki.Show(dir, "../etc"); err == nil {
				t.Error("Show accepted a path as a name")
			}
			if _, err := pki.Show(dir, "missing"); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("missing: %v", err)
			}
		})
	}
}

func files(t *testing.T, dir string) []string {
	t.Helper()
	list, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, f := range list {
		names = append(names, f.Name())
	}
	return names
}

func checkModes(t *testing.T, dir string) {
	t.Helper()
	info, err := os.Stat(dir)
	if err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("the directory's mode is %v", info.Mode())
	}
	for _, name := range files(t, dir) {
		info, err := os.Stat(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if strings.HasSuffix(name, "-key.pem") && info.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %v", name, info.Mode())
		}
	}
}

// snapshot returns the content of every file in a directory.
func snapshot(t *testing.T, dir string) map[string]string {
	t.Helper()
	all := make(map[string]string)
	for _, name := range files(t, dir) {
		text, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		all[name] = string(text)
	}
	return all
}

func TestNothingIsOverwritten(t *testing.T) {
	dir := t.TempDir()
	ca, err := pki.Init(dir, pki.CAOptions{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	leaf := pki.LeafOptions{DNSNames: []string{"a.test"}}
	if _, err := ca.IssueTo(dir, "a", leaf); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "lone-key.pem"), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	before := snapshot(t, dir)
	if _, err := pki.Init(dir, pki.CAOptions{}, nil); !errors.Is(err, fs.ErrExist) {
		t.Errorf("init: %v", err)
	}
	if _, err := pki.Init(dir, pki.CAOptions{}, &pki.CAOptions{}); !errors.Is(err, fs.ErrExist) {
		t.Errorf("init with an intermediate: %v", err)
	}
	for _, name := range []string{"a", "lone"} {
		if _, err := ca.IssueTo(dir, name, leaf); !errors.Is(err, fs.ErrExist) {
			t.Errorf("issue %s: %v", name, err)
		}
	}
	for _, name := range []string{"", ".", "..", "a/b", "ca", "intermediate", "x-key", "x.pem", "-x", "a\n", strings.Repeat("x", 101)} {
		if _, err := ca.IssueTo(dir, name, leaf); err == nil || errors.Is(err, fs.ErrExist) {
			t.Errorf("issue %q: %v", name, err)
		}
	}
	if _, err := ca.IssueTo(dir, "bad", pki.LeafOptions{}); err == nil {
		t.Error("a certificate without a name was issued")
	}
	if after := snapshot(t, dir); len(after) != len(before) {
		t.Errorf("files %v", files(t, dir))
	} else {
		for name, text := range before {
			if after[name] != text {
				t.Errorf("%s was changed", name)
			}
		}
	}
}

func TestLoadRefuses(t *testing.T) {
	for _, c := range []struct {
		name   string
		damage func(dir string) error
		say    string
	}{
		{"no files", func(dir string) error { return os.Remove(filepath.Join(dir, "ca.pem")) }, "drawbridge pki init"},
		{"garbage", func(dir string) error { return os.WriteFile(filepath.Join(dir, "ca.pem"), []byte("x"), 0o600) }, "ca.pem: holds no certificate"},
		{"a key that is garbage", func(dir string) error {
			return os.WriteFile(filepath.Join(dir, "intermediate-key.pem"), []byte("x"), 0o600)
		}, "holds no PKCS#8"},
		{"a key that is damaged", func(dir string) error {
			return os.WriteFile(filepath.Join(dir, "intermediate-key.pem"), []byte("-----BEGIN PRIVATE KEY-----\nc2VjcmV0\n-----END PRIVATE KEY-----\n"), 0o600)
		}, "cannot be read"},
		{"a key of another CA", func(dir string) error {
			return os.Rename(filepath.Join(dir, "ca-key.pem"), filepath.Join(dir, "intermediate-key.pem"))
		}, "not the key of"},
		{"a missing key", func(dir string) error { return os.Remove(filepath.Join(dir, "intermediate-key.pem")) }, "no such file"},
		{"an intermediate of another CA", func(dir string) error {
			other, err := pki.NewRoot(pki.CAOptions{})
			if err != nil {
				return err
			}
			return os.WriteFile(filepath.Join(dir, "intermediate.pem"), other.CertPEM(), 0o600)
		}, "not signed by"},
		{"a leaf in place of a CA", func(dir string) error {
			ca, err := pki.Load(dir)
			if err != nil {
				return err
			}
			issued, err := ca.Issue(pki.LeafOptions{DNSNames: []string{"a.test"}})
			if err != nil {
				return err
			}
			return os.WriteFile(filepath.Join(dir, "ca.pem"), issued.ChainPEM, 0o600)
		}, "not a CA certificate"},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			if _, err := pki.Init(dir, pki.CAOptions{}, &pki.CAOptions{}); err != nil {
				t.Fatal(err)
			}
			if err := c.damage(dir); err != nil {
				t.Fatal(err)
			}
			_, err := pki.Load(dir)
			if err == nil || !strings.Contains(err.Error(), c.say) {
				t.Errorf("error %v does not say %q", err, c.say)
			}
		})
	}
}

// The intermediate issues without the root's key, so that key can be kept
// elsewhere.
func TestRootKeyKeptElsewhere(t *testing.T) {
	dir := t.TempDir()
	if _, err := pki.Init(dir, pki.CAOptions{}, &pki.CAOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(dir, "ca-key.pem")); err != nil {
		t.Fatal(err)
	}
	ca, err := pki.Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ca.Issue(pki.LeafOptions{DNSNames: []string{"a.test"}}); err != nil {
		t.Error(err)
	}
	if _, err := ca.Root().Issue(pki.LeafOptions{DNSNames: []string{"a.test"}}); err == nil {
		t.Error("the root issued without its key")
	}
	if err := os.Remove(filepath.Join(dir, "intermediate.pem")); err != nil {
		t.Fatal(err)
	}
	if _, err := pki.Load(dir); err == nil || !strings.Contains(err.Error(), "no certificate can be issued") {
		t.Errorf("without both: %v", err)
	}
}

// OpenSSL and Java read and accept the files on disk.
func TestOpenSSLAndJavaReadTheFiles(t *testing.T) {
	for _, key := range []pki.KeyType{pki.ECDSAP256, pki.ECDSAP384, pki.RSA2048, pki.Ed25519} {
		t.Run(key.String(), func(t *testing.T) {
			dir := t.TempDir()
			ca, err := pki.Init(dir, pki.CAOptions{Key: key}, &pki.CAOptions{Key: key})
			if err != nil {
				t.Fatal(err)
			}
			e, err := ca.IssueTo(dir, "web", pki.LeafOptions{Usage: pki.Both, DNSNames: []string{"a.test"}, IPs: []net.IP{net.IPv4(10, 0, 0, 1)}, Key: key})
			if err != nil {
				t.Fatal(err)
			}
			file := func(name string) string { return filepath.Join(dir, name) }
			run(t, "openssl", "verify", "-x509_strict", "-purpose", "sslserver", "-verify_hostname", "a.test",
				"-CAfile", file("ca.pem"), "-untrusted", file("intermediate.pem"), e.CertPath)
			run(t, "openssl", "verify", "-x509_strict", "-purpose", "sslclient", "-verify_ip", "10.0.0.1",
				"-CAfile", file("ca.pem"), "-untrusted", e.CertPath, e.CertPath)
			run(t, "openssl", "pkey", "-in", e.KeyPath, "-check", "-noout")
			run(t, "openssl", "pkcs12", "-export", "-in", e.CertPath, "-inkey", e.KeyPath, "-certfile", file("ca.pem"),
				"-passout", "pass:changeit", "-out", file("web.p12"))
			if _, err := exec.LookPath("keytool"); err != nil {
				t.Skip("keytool is not installed")
			}
			out := run(t, "keytool", "-list", "-v", "-storetype", "PKCS12", "-keystore", file("web.p12"), "-storepass", "changeit")
			if !strings.Contains(out, "Certificate chain length: 3") {
				t.Errorf("keytool lists %s", out)
			}
		})
	}
}

func run(t *testing.T, name string, args ...string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		t.Skipf("%s is not installed", name)
	}
	out, err := exec.Command(path, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, args[0], err, out)
	}
	return string(out)
}
