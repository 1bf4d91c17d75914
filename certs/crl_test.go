package certs_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/drawbridge-gateway/drawbridge/bridge/alloctest"
	"github.com/drawbridge-gateway/drawbridge/certs"
	"github.com/drawbridge-gateway/drawbridge/certs/certstest"
	"github.com/drawbridge-gateway/drawbridge/certs/pki"
)

// A signer is a CA that signs lists that pki cannot create.
type signer struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newSigner(t testing.TB, change func(*x509.Certificate)) *signer {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "signer"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		SubjectKeyId: []byte{1},
	}
	change(template)
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &signer{cert, key}
}

func (s *signer) pem() []byte { return block("CERTIFICATE", s.cert.Raw) }

// crl returns a current, empty list in DER, with the given changes.
func (s *signer) crl(t testing.TB, change func(*x509.RevocationList)) []byte {
	t.Helper()
	template := &x509.RevocationList{
		Number: big.NewInt(1), ThisUpdate: time.Now().Add(-time.Hour), NextUpdate: time.Now().Add(time.Hour),
	}
	change(template)
	der, err := x509.CreateRevocationList(rand.Reader, template, s.cert, s.key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

// reissue returns a self-signed certificate for an existing key.
func reissue(t testing.TB, template *x509.Certificate, key *ecdsa.PrivateKey) *x509.Certificate {
	t.Helper()
	raw, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	c, err := x509.ParseCertificate(raw)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// leafOf issues a certificate for upstream.test of a kind that pki cannot
// create.
func leafOf(t testing.TB, ca *x509.Certificate, key *ecdsa.PrivateKey, change func(*x509.Certificate)) tls.Certificate {
	t.Helper()
	own, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(99), Subject: pkix.Name{CommonName: "leaf"}, DNSNames: []string{"upstream.test"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	change(template)
	raw, err := x509.CreateCertificate(rand.Reader, template, ca, own.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{raw}, PrivateKey: own}
}

// extension returns an extension whose identifier begins with 2.5.29.
func extension(last int, critical bool, value ...byte) pkix.Extension {
	return pkix.Extension{Id: asn1.ObjectIdentifier{2, 5, 29, last}, Critical: critical, Value: value}
}

// der returns an element with the given parts as contents.
func der(tag byte, parts ...[]byte) []byte {
	contents := join(parts...)
	return join([]byte{tag, byte(len(contents))}, contents)
}

func TestNewTrustBundleRefusesRevocationLists(t *testing.T) {
	s := newSigner(t, func(*x509.Certificate) {})
	good := s.crl(t, func(*x509.RevocationList) {})
	with := func(e ...pkix.Extension) []byte {
		return s.crl(t, func(l *x509.RevocationList) { l.ExtraExtensions = e })
	}
	entry := func(e pkix.Extension) []byte {
		return s.crl(t, func(l *x509.RevocationList) {
			l.RevokedCertificateEntries = []x509.RevocationListEntry{{SerialNumber: big.NewInt(5), RevocationTime: time.Now(), ExtraExtensions: []pkix.Extension{e}}}
		})
	}
	withSerial := s.crl(t, func(l *x509.RevocationList) {
		l.RevokedCertificateEntries = []x509.RevocationListEntry{{SerialNumber: big.NewInt(0x1122334455), RevocationTime: time.Now()}}
	})
	wide := strings.Replace(string(withSerial), "\x11\x22\x33\x44\x55", "\x00\x22\x33\x44\x55", 1) // not minimal
	for _, c := range []struct {
		name, say string
		data      []byte
	}{
		{"no bytes", "is empty", nil},
		{"only blanks", "is empty", []byte("\n \n")},
		{"garbage", "no PEM block", []byte("not a list")},
		{"binary garbage", "binary", []byte{1, 2, 0xff}},
		{"DER that is not a list", "malformed", s.cert.Raw},
		{"DER cut off", "malformed", good[:len(good)-1]},
		{"DER with trailing bytes", "malformed", append(append([]byte{}, good...), 0)},
		{"PEM with a list cut off", "revocation list 2 is malformed", join(block("X509 CRL", good), block("X509 CRL", good[:50]))},
		{"a damaged block", "damaged", join(block("X509 CRL", good), block("X509 CRL", good)[:100])},
		{"a certificate", `type "CERTIFICATE"`, s.pem()},
		{"a private key", "private key", join(block("X509 CRL", good), certstest.NewCA(t).Server(t, "a.test").KeyPEM)},
		{"a delta", "delta", with(extension(27, true, 2, 1, 1))},
		{"a delta that is not critical", "delta", with(extension(27, false, 2, 1, 1))},
		{"an indirect list", "indirect", with(extension(28, true, der(0x30, []byte{0x84, 1, 0xff})...))},
		{"a list of some reasons", "some revocation reasons", with(extension(28, true, der(0x30, []byte{0x83, 2, 0, 0x80})...))},
		{"a list of attribute certificates", "attribute certificates", with(extension(28, true, der(0x30, []byte{0x85, 1, 0xff})...))},
		{"a malformed scope", "malformed issuingDistributionPoint", with(extension(28, true, 1, 2, 3))},
		{"a scope with trailing bytes", "malformed issuingDistributionPoint", with(extension(28, true, der(0x30, []byte{0x86, 1, 0xff})...))},
		{"a distribution point that is a directory name", "not a URI", with(extension(28, true, der(0x30, der(0xa0, der(0xa0, []byte{0xa4, 2, 0x30, 0})))...))},
		{"an unknown critical extension", "2.5.29.99", with(extension(99, true, 5, 0))},
		{"an entry of another issuer", "indirect", entry(extension(29, true, 0x30, 0))},
		{"an entry that cannot be evaluated", "critical extension", entry(extension(99, true, 5, 0))},
		{"a serial number that is not an integer", "malformed", []byte(wide)},
		{"no next update", "nextUpdate", withoutNextUpdate(t, good)},
	} {
		t.Run(c.name, func(t *testing.T) {
			b, err := certs.NewTrustBundle(certs.TrustSource{Field: "pem", Certificates: s.pem(), CRLs: []certs.CRLSource{
				{Field: "crls[0].pem", Data: good}, {Field: "crls[1].file", Data: c.data},
			}})
			if b != nil {
				t.Error("a bundle was returned")
			}
			if f := wantFault(t, err, "crls[1].file"); !strings.Contains(f.Problem, c.say) {
				t.Errorf("problem %q does not say %q", f.Problem, c.say)
			}
			checkText(t, err.Error())
			if _, err := certs.SystemTrustBundle(certs.CRLSource{Field: "crls[0]", Data: c.data}); err == nil {
				t.Error("SystemTrustBundle accepts the list")
			}
		})
	}
}

// withoutNextUpdate removes the second time from a list, which invalidates its
// signature.
func withoutNextUpdate(t *testing.T, list []byte) []byte {
	t.Helper()
	var outer struct {
		TBS       asn1.RawValue
		Algorithm asn1.RawValue
		Signature asn1.BitString
	}
	if _, err := asn1.Unmarshal(list, &outer); err != nil {
		t.Fatal(err)
	}
	var fields []asn1.RawValue
	if _, err := asn1.Unmarshal(outer.TBS.FullBytes, &fields); err != nil {
		t.Fatal(err)
	}
	fields = append(fields[:4], fields[5:]...) // version, algorithm, issuer, thisUpdate, nextUpdate
	var err error
	if outer.TBS.FullBytes, err = asn1.Marshal(fields); err != nil {
		t.Fatal(err)
	}
	text, err := asn1.Marshal(outer)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// Every fault of the certificates and of every list is reported at once.
func TestNewTrustBundleReportsAllFaults(t *testing.T) {
	_, err := certs.NewTrustBundle(certs.TrustSource{Field: "file", Certificates: certstest.NewCA(t).Server(t, "a.test").ChainPEM, CRLs: []certs.CRLSource{
		{Field: "crls[0].pem", Data: []byte("x")}, {Field: "crls[1].file"},
	}})
	for _, field := range []string{"file[0]", "crls[0].pem", "crls[1].file"} {
		wantFault(t, err, field)
	}
}

func TestNewTrustBundleAcceptsDER(t *testing.T) {
	a, b := certstest.NewCA(t), certstest.NewCA(t)
	list, _ := pem.Decode(a.CRL(t, a.Certificate()))
	both, err := certs.NewTrustBundle(certs.TrustSource{
		Certificates: join(a.Certificate().Raw, b.Certificate().Raw),
		CRLs:         []certs.CRLSource{{Data: list.Bytes}},
	})
	if err != nil {
		t.Fatal(err)
	}
	if infos := both.CRLInfos(); both.Count() != 2 || len(infos) != 1 || infos[0].Revoked != 1 {
		t.Errorf("%d certificates, lists %+v", both.Count(), infos)
	}
	_, err = certs.NewTrustBundle(certs.TrustSource{Field: "file", Certificates: a.Certificate().Raw[:100]})
	if f := wantFault(t, err, "file"); !strings.Contains(f.Problem, "DER") {
		t.Errorf("problem %q", f.Problem)
	}
}

func TestCRLInfos(t *testing.T) {
	now := time.Now()
	ca := certstest.NewCA(t)
	below := ca.Intermediate(t)
	stranger, err := pki.NewRoot(pki.CAOptions{CommonName: "stranger"})
	if err != nil {
		t.Fatal(err)
	}
	crl := func(ca *certstest.CA, o pki.CRLOptions) []byte {
		t.Helper()
		text, err := ca.CA.CRL(o)
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	sameName, err := pki.NewRoot(pki.CAOptions{CommonName: ca.Certificate().Subject.CommonName})
	if err != nil {
		t.Fatal(err)
	}
	s := newSigner(t, func(*x509.Certificate) {})
	scoped := s.crl(t, func(l *x509.RevocationList) {
		point := der(0xa0, der(0xa0, der(0x86, []byte("http://crl.test/1"))))
		l.ExtraExtensions = []pkix.Extension{extension(28, true, der(0x30, point, []byte{0x81, 1, 0xff})...)}
	})
	for _, c := range []struct {
		name    string
		text    []byte
		revoked int
		warn    string
	}{
		{"valid", crl(ca, pki.CRLOptions{Revoked: []*big.Int{big.NewInt(1), big.NewInt(2), big.NewInt(2)}}), 2, ""},
		{"outdated", crl(ca, pki.CRLOptions{ThisUpdate: now.Add(-2 * time.Hour), NextUpdate: now.Add(-time.Hour)}), 0, "outdated"},
		{"not valid yet", crl(ca, pki.CRLOptions{ThisUpdate: now.Add(time.Hour)}), 0, "it is not valid before"},
		{"a list of an intermediate outside the bundle", crl(below, pki.CRLOptions{}), 0, "an intermediate"},
		{"a list of an unknown CA", crl(&certstest.CA{CA: stranger}, pki.CRLOptions{}), 0, "its issuer is not in the bundle"},
		{"a list signed by another key", crl(&certstest.CA{CA: sameName}, pki.CRLOptions{}), 0, "not signed by the key of"},
		{"a list for some certificates", scoped, 0, "only for certificates of end entities, certificates with the distribution point http://crl.test/1"},
	} {
		t.Run(c.name, func(t *testing.T) {
			b, err := certs.NewTrustBundle(certs.TrustSource{Certificates: join(ca.CertPEM(), s.pem()), CRLs: []certs.CRLSource{{Data: c.text}}})
			if err != nil {
				t.Fatal(err)
			}
			infos := b.CRLInfos()
			if len(infos) != 1 || infos[0].Revoked != c.revoked || infos[0].Issuer == "" || infos[0].NextUpdate.IsZero() {
				t.Fatalf("infos %+v", infos)
			}
			got := strings.Join(infos[0].Warnings, "; ")
			if (c.warn == "") != (got == "") || !strings.Contains(got, c.warn) {
				t.Errorf("warnings %q, want %q", got, c.warn)
			}
		})
	}
	if infos := ca.Trust(t).CRLInfos(); infos != nil {
		t.Errorf("infos %+v of a bundle without lists", infos)
	}
}

func TestEqualComparesRevocationLists(t *testing.T) {
	ca := certstest.NewCA(t)
	one, two := ca.CRL(t), ca.CRL(t, ca.Certificate())
	for _, c := range []struct {
		name string
		a, b *certs.TrustBundle
		want bool
	}{
		{"no lists", ca.Trust(t), ca.TrustCRLs(t), true},
		{"a list and no list", ca.TrustCRLs(t, one), ca.Trust(t), false},
		{"the same", ca.TrustCRLs(t, one), ca.TrustCRLs(t, one), true},
		{"the same twice", ca.TrustCRLs(t, one), ca.TrustCRLs(t, one, one), true},
		{"different lists", ca.TrustCRLs(t, one), ca.TrustCRLs(t, two), false},
		{"both lists in one source", ca.TrustCRLs(t, one, two), ca.TrustCRLs(t, join(two, one)), true},
	} {
		if c.a.Equal(c.b) != c.want || c.b.Equal(c.a) != c.want {
			t.Errorf("%s: equal is %v", c.name, !c.want)
		}
	}
}

// A version 1 list is valid. `openssl ca` makes one if no extensions are
// configured.
func TestRevocationListsOfOpenSSL(t *testing.T) {
	path, err := exec.LookPath("openssl")
	if err != nil {
		t.Skip("openssl is not installed")
	}
	dir := t.TempDir()
	ca, err := pki.Init(filepath.Join(dir, "pki"), pki.CAOptions{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	issued, err := ca.Issue(pki.LeafOptions{DNSNames: []string{"upstream.test"}})
	if err != nil {
		t.Fatal(err)
	}
	file := func(name, text string) string {
		p := filepath.Join(dir, name)
		if err := os.WriteFile(p, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return p
	}
	file("index.txt", "")
	file("number", "01\n")
	for _, c := range []struct{ name, extra string }{
		{"version 1", ""},
		{"version 2", "crlnumber=" + dir + "/number\ncrl_extensions=e\n[e]\nauthorityKeyIdentifier=keyid\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			config := file("ca.cnf", "[ca]\ndefault_ca=c\n[c]\ndatabase="+dir+"/index.txt\ndefault_md=sha256\ndefault_crl_days=2\n"+c.extra)
			openssl := func(args ...string) {
				t.Helper()
				args = append([]string{"ca", "-config", config, "-cert", dir + "/pki/ca.pem", "-keyfile", dir + "/pki/ca-key.pem"}, args...)
				if out, err := exec.Command(path, args...).CombinedOutput(); err != nil {
					t.Fatalf("openssl %v: %v\n%s", args, err, out)
				}
			}
			file("index.txt", "")
			openssl("-revoke", file("leaf.pem", string(issued.ChainPEM)), "-crl_reason", "keyCompromise")
			openssl("-gencrl", "-out", dir+"/crl.pem")
			text, err := os.ReadFile(dir + "/crl.pem")
			if err != nil {
				t.Fatal(err)
			}
			c := &certstest.CA{CA: ca}
			trust := c.TrustCRLs(t, text)
			if infos := trust.CRLInfos(); len(infos) != 1 || infos[0].Revoked != 1 || len(infos[0].Warnings) > 0 {
				t.Fatalf("infos %+v", infos)
			}
			s := serveConfig(t, tlsConfig(t, issued))
			_, err = connect(t, newClient(t, certs.ClientOptions{ServerName: "upstream.test", Trust: []*certs.TrustBundle{trust}}), s.addr)
			wantReason(t, err, certs.ReasonRevoked)
		})
	}
}

// bigCRL returns a list in PEM of n entries with serial numbers of 16 bytes
// and a reason each, like that of a busy CA.
func bigCRL(t testing.TB, s *signer, n int) []byte {
	t.Helper()
	serial := new(big.Int).Lsh(big.NewInt(0x5eed), 110)
	return block("X509 CRL", s.crl(t, func(l *x509.RevocationList) {
		for range n {
			serial = new(big.Int).Add(serial, big.NewInt(977))
			l.RevokedCertificateEntries = append(l.RevokedCertificateEntries,
				x509.RevocationListEntry{SerialNumber: serial, RevocationTime: time.Now(), ReasonCode: 4})
		}
	}))
}

// BenchmarkLoadCRL loads a list of 100,000 entries, and reports the memory
// that it keeps and allocates.
func BenchmarkLoadCRL(b *testing.B) {
	s := newSigner(b, func(*x509.Certificate) {})
	text := bigCRL(b, s, 100_000)
	source := certs.TrustSource{Certificates: s.pem(), CRLs: []certs.CRLSource{{Data: text}}}
	var before, after runtime.MemStats
	var held *certs.TrustBundle
	b.ReportAllocs()
	b.SetBytes(int64(len(text)))
	runtime.GC()
	runtime.GC() // the second collection frees objects with finalizers
	runtime.ReadMemStats(&before)
	for b.Loop() {
		var err error
		if held, err = certs.NewTrustBundle(source); err != nil {
			b.Fatal(err)
		}
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	b.ReportMetric((float64(after.HeapAlloc)-float64(before.HeapAlloc))/1e6, "MB-held")
	if held.CRLInfos()[0].Revoked != 100_000 {
		b.Fatal("entries are missing")
	}
	runtime.KeepAlive(text)
}

// A list of 100,000 entries allocates at most eight times its size.
func TestMemoryOfBigRevocationLists(t *testing.T) {
	if alloctest.Race {
		t.Skip("the race detector allocates memory of its own")
	}
	s := newSigner(t, func(*x509.Certificate) {})
	text := bigCRL(t, s, 100_000)
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	b, err := certs.NewTrustBundle(certs.TrustSource{Certificates: s.pem(), CRLs: []certs.CRLSource{{Data: text}}})
	if err != nil {
		t.Fatal(err)
	}
	runtime.ReadMemStats(&after)
	allocated := after.TotalAlloc - before.TotalAlloc
	if infos := b.CRLInfos(); infos[0].Revoked != 100_000 {
		t.Fatalf("infos %+v", infos)
	}
	if limit := uint64(8 * len(text)); allocated > limit {
		t.Errorf("a list of %d bytes allocated %d bytes", len(text), allocated)
	}
}

func FuzzCRL(f *testing.F) {
	s := newSigner(f, func(*x509.Certificate) {})
	f.Add(s.crl(f, func(*x509.RevocationList) {}))
	f.Add(bigCRL(f, s, 3))
	f.Add(join(bigCRL(f, s, 1), []byte("text\n"), bigCRL(f, s, 2)))
	point := der(0xa0, der(0xa0, der(0x86, []byte("http://crl.test/1"))))
	f.Add(s.crl(f, func(l *x509.RevocationList) {
		l.ExtraExtensions = []pkix.Extension{extension(28, true, der(0x30, point, []byte{0x81, 1, 0xff})...)}
	}))
	trust := s.pem()
	f.Fuzz(func(t *testing.T, data []byte) {
		b, err := certs.NewTrustBundle(certs.TrustSource{Field: "pem", Certificates: trust, CRLs: []certs.CRLSource{{Field: "crls[0]", Data: data}}})
		checkFaults(t, err)
		if (err == nil) != (b != nil) {
			t.Fatalf("bundle %v, error %v", b, err)
		}
		if err != nil {
			wantFault(t, err, "crls[0]")
			return
		}
		infos := b.CRLInfos()
		if len(infos) == 0 {
			t.Error("no list and no error")
		}
		for _, i := range infos {
			checkText(t, i.Issuer)
			for _, w := range i.Warnings {
				checkText(t, w)
			}
		}
	})
}
