package certs_test

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"math/big"
	"net"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/drawbridge-gateway/drawbridge/certs"
)

// A verdictCase is a server's chain and its client's trust. Each case is a row
// of docs/verdicts.md.
type verdictCase struct {
	chain [][]byte // DER, leaf first
	key   crypto.Signer
	trust []byte // PEM
	crl   []byte // DER; nil for none
	name  string // the name to verify; "" means upstream.test
}

func caseOf(trust *issuedKey, chain tls.Certificate) verdictCase {
	return verdictCase{chain: chain.Certificate, key: chain.PrivateKey.(crypto.Signer), trust: trust.pem()}
}

// verdictCases makes a case of every kind in the table.
func verdictCases(t *testing.T) map[string]verdictCase {
	root := mint(t, caTemplate("root"), ecdsaKey(t), nil)
	rsaRoot := mint(t, caTemplate("RSA root"), rsaKey(t), nil)
	under := func(ca *issuedKey, change func(*x509.Certificate)) verdictCase {
		leaf := serverTemplate()
		if change != nil {
			change(leaf)
		}
		return caseOf(ca, mint(t, leaf, ecdsaKey(t), ca).chain())
	}
	below := func(change func(*x509.Certificate)) verdictCase {
		template := caTemplate("intermediate")
		change(template)
		ca := mint(t, template, ecdsaKey(t), root)
		return caseOf(root, mint(t, serverTemplate(), ecdsaKey(t), ca).chain(ca))
	}
	constraint := func(tag int) func(*x509.Certificate) {
		return func(c *x509.Certificate) {
			c.ExtraExtensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 30}, Critical: true, Value: directoryConstraint(t, tag)}}
		}
	}
	v1 := version1(t)
	nokcs := caTemplate("no keyCertSign")
	nokcs.KeyUsage = x509.KeyUsageDigitalSignature
	plain := caTemplate("no basicConstraints")
	plain.BasicConstraintsValid, plain.IsCA, plain.KeyUsage = false, false, 0

	cases := map[string]verdictCase{
		"good":                under(root, nil),
		"v1ca":                caseOf(v1, v1.chain()),
		"underv1":             under(v1, nil),
		"no basicConstraints": under(mint(t, plain, ecdsaKey(t), nil), nil),
		"undernokcs":          under(mint(t, nokcs, ecdsaKey(t), nil), nil),
		"sha1":                caseOf(rsaRoot, signedWithSHA1(t, rsaRoot)),
		"pssig2":              caseOf(rsaRoot, signedWithSalt(t, rsaRoot, 50)),
		"underpss":            underPSS(t),
		"undereku":            below(func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth} }),
		"undernc": below(func(c *x509.Certificate) {
			c.PermittedDNSDomains, c.PermittedDNSDomainsCritical = []string{"corp.example"}, true
		}),
		"underncdir, excluded": below(constraint(1)),
		"crit": under(root, func(c *x509.Certificate) {
			c.ExtraExtensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{1, 2, 3, 4, 5}, Critical: true, Value: []byte{5, 0}}}
		}),
		"expired": under(root, func(c *x509.Certificate) {
			c.NotBefore, c.NotAfter = time.Now().Add(-2*time.Hour), time.Now().Add(-time.Hour)
		}),
		"ip-as-dns": under(root, func(c *x509.Certificate) { c.DNSNames = []string{"127.0.0.1"} }),
		"trailing-dot": under(root, func(c *x509.Certificate) {
			c.DNSNames = nil
			c.ExtraExtensions = []pkix.Extension{rawSAN(t, 2, "upstream.test.")}
		}),
		"partial-wildcard": under(root, func(c *x509.Certificate) {
			c.DNSNames = nil
			c.ExtraExtensions = []pkix.Extension{rawSAN(t, 2, "api-*.svc.test")}
		}),
		"bare-wildcard": under(root, func(c *x509.Certificate) { c.DNSNames = []string{"*"} }),
		"a NUL in a name": under(root, func(c *x509.Certificate) {
			c.DNSNames = nil
			c.ExtraExtensions = []pkix.Extension{rawSAN(t, 2, "upstream.test\x00.evil.example")}
		}),
	}
	permitted := caTemplate("intermediate")
	constraint(0)(permitted)
	between, inside := mint(t, permitted, ecdsaKey(t), root), serverTemplate()
	inside.Subject.Organization = []string{"Example"} // the constraint permits this
	cases["underncdir"] = caseOf(root, mint(t, inside, ecdsaKey(t), between).chain(between))
	set := func(name, verify string) { c := cases[name]; c.name = verify; cases[name] = c }
	set("ip-as-dns", "127.0.0.1")
	set("partial-wildcard", "api-1.svc.test")
	set("bare-wildcard", "upstream")
	algorithm, sign := signECDSA(root.key)
	for name, change := range oddCertificates() {
		leaf := mint(t, serverTemplate(), ecdsaKey(t), root)
		cases[name] = verdictCase{chain: [][]byte{remintDER(t, leaf, algorithm, change, sign)}, key: leaf.key, trust: root.pem()}
	}
	negativeCA := remintDER(t, mint(t, caTemplate("root"), root.key, nil), algorithm, func(tbs *tbsCertificate) {
		tbs.Serial = asn1.RawValue{FullBytes: []byte{2, 1, 0x81}}
	}, sign)
	c := under(root, nil)
	c.trust = block("CERTIFICATE", negativeCA)
	cases["ca-negative_serial"] = c
	for name, list := range oddLists(t, root) {
		c := under(root, nil)
		c.crl = list(c.chain[0])
		cases[name] = c
	}
	return cases
}

func signedWithSHA1(t *testing.T, ca *issuedKey) tls.Certificate {
	algorithm := pkix.AlgorithmIdentifier{Algorithm: asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 5}, Parameters: asn1.NullRawValue}
	return remint(t, mint(t, serverTemplate(), ecdsaKey(t), ca), algorithm, nil, func(tbs []byte) ([]byte, error) {
		sum := sha1.Sum(tbs)
		return rsa.SignPKCS1v15(rand.Reader, ca.key.(*rsa.PrivateKey), crypto.SHA1, sum[:])
	}).chain()
}

func signedWithSalt(t *testing.T, ca *issuedKey, salt int) tls.Certificate {
	algorithm := pkix.AlgorithmIdentifier{Algorithm: asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 10}, Parameters: pssParameters(t, salt)}
	return remint(t, mint(t, serverTemplate(), ecdsaKey(t), ca), algorithm, nil, func(tbs []byte) ([]byte, error) {
		sum := sha256.Sum256(tbs)
		return rsa.SignPSS(rand.Reader, ca.key.(*rsa.PrivateKey), crypto.SHA256, sum[:], &rsa.PSSOptions{SaltLength: salt})
	}).chain()
}

// underPSS is a leaf of a CA whose key is of the type id-RSASSA-PSS, which only
// OpenSSL makes.
func underPSS(t *testing.T) verdictCase {
	file := fileMaker(t)
	caKey := file("ca.key", byOpenSSL(t, nil, "genpkey -algorithm RSA-PSS -pkeyopt rsa_keygen_bits:2048"))
	ca := byOpenSSL(t, nil, "req -x509 -new -key "+caKey+" -subj /CN=pss -days 10 -addext keyUsage=critical,keyCertSign")
	key := ecdsaKey(t)
	leafKey := file("leaf.key", pkcs8PEM(t, key))
	request := file("leaf.csr", byOpenSSL(t, nil, "req -new -key "+leafKey+" -subj /CN=leaf"))
	extensions := file("ext", []byte("subjectAltName=DNS:upstream.test\nextendedKeyUsage=serverAuth\n"))
	leaf := byOpenSSL(t, nil, "x509 -req -in "+request+" -CA "+file("ca.pem", ca)+" -CAkey "+caKey+" -days 9 -extfile "+extensions)
	return verdictCase{chain: [][]byte{derOf(leaf)}, key: key, trust: ca}
}

// oddCertificates are certificates that OpenSSL or Go parse differently.
func oddCertificates() map[string]func(*tbsCertificate) {
	serial := func(b ...byte) func(*tbsCertificate) {
		return func(f *tbsCertificate) { f.Serial = asn1.RawValue{FullBytes: der(2, b)} }
	}
	subject := func(tag byte, text string) func(*tbsCertificate) {
		return func(f *tbsCertificate) {
			organization := der(0x30, []byte{6, 3, 85, 4, 10}, der(tag, []byte(text)))
			f.Subject = asn1.RawValue{FullBytes: der(0x30, der(0x31, organization))}
		}
	}
	validity := func(parts ...[]byte) func(*tbsCertificate) {
		return func(f *tbsCertificate) { f.Validity = asn1.RawValue{FullBytes: der(0x30, parts...)} }
	}
	utc, generalized := byte(23), byte(24)
	year := time.Now().UTC().Year() % 100
	from := []byte{byte('0' + (year-1)/10), byte('0' + (year-1)%10)}
	to := []byte{byte('0' + (year+2)/10), byte('0' + (year+2)%10)}
	return map[string]func(*tbsCertificate){
		"leaf-serial_0":                    serial(0),
		"leaf-negative_serial":             serial(0x86, 1),
		"leaf-serial_of_21_bytes":          serial(append([]byte{1}, bytes.Repeat([]byte{0x22}, 20)...)...),
		"leaf-BMPString_subject":           subject(30, "\x00M\x00\xfc"),
		"leaf-UniversalString_subject":     subject(28, "\x00\x00\x00M"),
		"leaf-Latin_1_in_T61String":        subject(20, "M\xfcller"),
		"leaf-Latin_1_in_UTF8String":       subject(12, "M\xfcller"),
		"leaf-Latin_1_in_PrintableString":  subject(19, "M\xfcller"),
		"leaf-_in_PrintableString":         subject(19, "A & B"),
		"leaf-___in_PrintableString":       subject(19, "a@b"),
		"leaf-GeneralizedTime_before_2050": validity(der(generalized, []byte("20"), from, []byte("0101000000Z")), der(generalized, []byte("20"), to, []byte("0101000000Z"))),
		"leaf-notAfter_99991231235959Z":    validity(der(utc, from, []byte("0101000000Z")), der(generalized, []byte("99991231235959Z"))),
		"leaf-validity_without_seconds":    validity(der(utc, from, []byte("01010000Z")), der(utc, to, []byte("01010000Z"))),
	}
}

// oddLists make a revocation list for a leaf.
func oddLists(t *testing.T, ca *issuedKey) map[string]func(leaf []byte) []byte {
	list := func(at time.Time, extensions ...pkix.Extension) func([]byte) []byte {
		return func(leaf []byte) []byte {
			template := &x509.RevocationList{
				Number: big.NewInt(2), ThisUpdate: time.Now().Add(-time.Hour), NextUpdate: time.Now().Add(time.Hour), ExtraExtensions: extensions,
			}
			if !at.IsZero() {
				c, err := x509.ParseCertificate(leaf)
				if err != nil {
					t.Fatal(err)
				}
				template.RevokedCertificateEntries = []x509.RevocationListEntry{{SerialNumber: c.SerialNumber, RevocationTime: at}}
			}
			out, err := x509.CreateRevocationList(rand.Reader, template, ca.leaf, ca.key)
			if err != nil {
				t.Fatal(err)
			}
			return out
		}
	}
	uri := der(0x30, der(0xa0, der(0xa0, der(0x86, []byte("http://crl.example/x.crl")))))
	return map[string]func([]byte) []byte{
		"rev.crl":    list(time.Now().Add(-time.Minute)),
		"future.crl": list(time.Now().Add(24 * time.Hour)),
		"delta.crl":  list(time.Time{}, extension(27, true, 2, 1, 1)),
		"idpr.crl":   list(time.Time{}, pkix.Extension{Id: asn1.ObjectIdentifier{2, 5, 29, 28}, Critical: true, Value: uri}),
		"idpu.crl":   list(time.Time{}, extension(28, true, der(0x30, []byte{0x81, 1, 0xff})...)),
		"v1.crl":     func(leaf []byte) []byte { return version1List(t, list(time.Time{})(leaf), ca.key) },
		"unk.crl":    list(time.Time{}, pkix.Extension{Id: asn1.ObjectIdentifier{1, 2, 3, 4, 5}, Critical: true, Value: []byte{5, 0}}),
	}
}

// version1List removes the version and the extensions from a list.
func version1List(t *testing.T, list []byte, key crypto.Signer) []byte {
	t.Helper()
	var outer struct {
		TBS, Algorithm asn1.RawValue
		Signature      asn1.BitString
	}
	var fields []asn1.RawValue
	if _, err := asn1.Unmarshal(list, &outer); err != nil {
		t.Fatal(err)
	}
	if _, err := asn1.Unmarshal(outer.TBS.FullBytes, &fields); err != nil {
		t.Fatal(err)
	}
	fields = fields[1 : len(fields)-1]
	tbs, err := asn1.Marshal(fields)
	if err != nil {
		t.Fatal(err)
	}
	_, sign := signECDSA(key)
	signature, err := sign(tbs)
	if err != nil {
		t.Fatal(err)
	}
	outer.TBS, outer.Signature = asn1.RawValue{FullBytes: tbs}, asn1.BitString{Bytes: signature, BitLength: 8 * len(signature)}
	out, err := asn1.Marshal(outer)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// ours returns this package's verdict, OK or the reason of a client that
// rejects the case, and the text of the error. A client with an invalid bundle
// cannot be made.
func (c *verdictCase) ours(t *testing.T) (verdict, text string) {
	t.Helper()
	source := certs.TrustSource{Field: "pem", Certificates: c.trust}
	if c.crl != nil {
		source.CRLs = []certs.CRLSource{{Field: "crl", Data: c.crl}}
	}
	trust, err := certs.NewTrustBundle(source)
	if err != nil {
		return "rejected on write", err.Error()
	}
	o := certs.ClientOptions{Trust: []*certs.TrustBundle{trust}, ServerName: c.verified()}
	s := serveConfig(t, &tls.Config{Certificates: []tls.Certificate{{Certificate: c.chain, PrivateKey: c.key}}})
	_, err = connect(t, newClient(t, o), s.addr)
	if err == nil {
		return "OK", ""
	}
	return string(certs.Classify(err)), certs.ErrorText(err)
}

func (c *verdictCase) verified() string {
	if c.name == "" {
		return "upstream.test"
	}
	return c.name
}

var opensslError = regexp.MustCompile(`error (\d+) at`)

// openssl returns the verdict of `openssl verify`: OK, or the number of its
// first error.
func (c *verdictCase) openssl(t *testing.T) string {
	t.Helper()
	path, err := exec.LookPath("openssl")
	if err != nil {
		t.Skip("openssl is not installed")
	}
	write := fileMaker(t)
	file := func(name, kind string, ders ...[]byte) string {
		var text []byte
		for _, d := range ders {
			text = append(text, block(kind, d)...)
		}
		return write(name, text)
	}
	args := []string{"verify", "-purpose", "sslserver", "-CAfile", write("trust.pem", c.trust)}
	if net.ParseIP(c.verified()) != nil {
		args = append(args, "-verify_ip", c.verified())
	} else {
		args = append(args, "-verify_hostname", c.verified())
	}
	if len(c.chain) > 1 {
		args = append(args, "-untrusted", file("between.pem", "CERTIFICATE", c.chain[1:]...))
	}
	if c.crl != nil {
		args = append(args, "-crl_check", "-CRLfile", file("list.crl", "X509 CRL", c.crl))
	}
	out, err := exec.Command(path, append(args, file("leaf.pem", "CERTIFICATE", c.chain[0]))...).CombinedOutput()
	if err == nil {
		return "OK"
	}
	if m := opensslError.FindSubmatch(out); m != nil {
		return "error " + string(m[1])
	}
	return "cannot be read"
}

// The table of verdicts in the documentation matches the verdicts of OpenSSL
// and of this package, and explains every difference.
func TestVerdictsMatchTheTable(t *testing.T) {
	page, err := os.ReadFile("../docs/verdicts.md")
	if err != nil {
		t.Fatal(err)
	}
	rows := map[string][]string{}
	for line := range strings.Lines(string(page)) {
		cells := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), " | ")
		if len(cells) == 5 && strings.HasPrefix(line, "| `") {
			for i := range cells {
				cells[i] = strings.TrimSpace(cells[i])
			}
			rows[strings.Trim(cells[0], "`")] = cells
		}
	}
	// Error numbers differ between versions of OpenSSL.
	comparable := strings.HasPrefix(string(byOpenSSL(t, nil, "version")), "OpenSSL 3.0")
	cases := verdictCases(t)
	for name := range rows {
		if _, ok := cases[name]; !ok {
			t.Errorf("the table has %s, but no test case has this name", name)
		}
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			theirs := c.openssl(t)
			ours, text := c.ours(t)
			t.Logf("| `%s` | %s | %s | %s", name, theirs, ours, text)
			checkText(t, text)
			row := rows[name]
			if row == nil {
				t.Fatal("the table has no row for this case")
			}
			if !comparable {
				theirs = row[2]
			}
			if row[2] != theirs || row[3] != "`"+ours+"`" {
				t.Errorf("the table has %s and %s, want %s and `%s`", row[2], row[3], theirs, ours)
			}
			fact, explanation := "", row[4] // the cell is: "fact" why
			if parts := strings.SplitN(row[4], `"`, 3); len(parts) == 3 && parts[0] == "" {
				fact, explanation = parts[1], strings.TrimSpace(parts[2])
			}
			if (fact == "") != (ours == "OK") || !strings.Contains(text, fact) {
				t.Errorf("the table says %q, but the message does not: %s", fact, text)
			}
			if (theirs == "OK") != (ours == "OK") && explanation == "" {
				t.Error("the table does not explain the difference")
			}
		})
	}
}
