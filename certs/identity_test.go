package certs_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/url"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/drawbridge-gateway/drawbridge/certs"
)

var (
	oidCN = asn1.ObjectIdentifier{2, 5, 4, 3}
	oidO  = asn1.ObjectIdentifier{2, 5, 4, 10}
	oidOU = asn1.ObjectIdentifier{2, 5, 4, 11}
	oidDC = asn1.ObjectIdentifier{0, 9, 2342, 19200300, 100, 1, 25}
)

// named returns a certificate with the given subject, changed by change.
func named(t *testing.T, subject pkix.RDNSequence, change func(*x509.Certificate)) *x509.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := asn1.Marshal(subject)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(0xBEEF), RawSubject: raw, NotAfter: time.Now().Add(time.Hour)}
	if change != nil {
		change(template)
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// rdn returns a part of a name, with one or more attributes.
func rdn(all ...any) (r pkix.RelativeDistinguishedNameSET) {
	for i := 0; i < len(all); i += 2 {
		r = append(r, pkix.AttributeTypeAndValue{Type: all[i].(asn1.ObjectIdentifier), Value: all[i+1]})
	}
	return r
}

func TestSubjectsFollowRFC4514(t *testing.T) {
	for want, subject := range map[string]pkix.RDNSequence{
		"":                               {},
		"CN=gateway,O=Example":           {rdn(oidO, "Example"), rdn(oidCN, "gateway")},
		"O=Example,CN=gateway":           {rdn(oidCN, "gateway"), rdn(oidO, "Example")},
		"CN=a+OU=b,DC=example,DC=com":    {rdn(oidDC, "com"), rdn(oidDC, "example"), rdn(oidCN, "a", oidOU, "b")},
		`CN=a\,O=b`:                      {rdn(oidCN, "a,O=b")},
		`CN=a\+O=b\;\<c\>\"d\"\\`:        {rdn(oidCN, `a+O=b;<c>"d"\`)},
		`CN=\ a b\ ,O=\#x#`:              {rdn(oidO, "#x#"), rdn(oidCN, " a b ")},
		`CN=\ `:                          {rdn(oidCN, " ")},
		`CN=b\C3\BCcher`:                 {rdn(oidCN, "bücher")},
		`CN=a\0D\0AX-Admin: 1\00`:        {rdn(oidCN, "a\r\nX-Admin: 1\x00")},
		`CN=a\1B[31m\7F`:                 {rdn(oidCN, "a\x1b[31m\x7f")},
		"1.2.840.113549.1.9.1=#0c026140": {rdn(asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 1}, "a@")},
	} {
		if got := certs.Identify(named(t, subject, nil)).Subject; got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

// OpenSSL writes the same text, if it has the same names for the attributes.
func TestSubjectsAreWrittenAsOpenSSLWritesThem(t *testing.T) {
	path, err := exec.LookPath("openssl")
	if err != nil {
		t.Skip("openssl is not installed")
	}
	for _, subject := range []pkix.RDNSequence{
		{rdn(oidO, "Example"), rdn(oidCN, "gateway")},
		{rdn(oidDC, "com"), rdn(oidDC, "example"), rdn(oidCN, `a,b+c"d\e<f>;g`)},
		{rdn(oidO, "#x#"), rdn(oidCN, " a b "), rdn(oidOU, "bücher")},
		{rdn(oidCN, "a\r\nb\x1b")},
	} {
		c := named(t, subject, nil)
		cmd := exec.Command(path, "x509", "-noout", "-subject", "-nameopt", "RFC2253")
		cmd.Stdin = bytes.NewReader(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw}))
		out, err := cmd.Output()
		if err != nil {
			t.Fatal(err)
		}
		want := strings.TrimSuffix(strings.TrimPrefix(string(out), "subject="), "\n")
		if got := certs.Identify(c).Subject; got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

func TestIdentity(t *testing.T) {
	c := named(t, pkix.RDNSequence{rdn(oidCN, "gateway")}, func(c *x509.Certificate) {
		c.DNSNames = []string{"a.example", `b,DNS:admin.example`, `c\2Cd "e"`}
		c.IPAddresses = []net.IP{net.ParseIP("192.0.2.1"), net.ParseIP("2001:db8::1")}
		c.URIs = []*url.URL{{Scheme: "spiffe", Host: "example", Path: "/a,b"}}
		c.EmailAddresses = []string{"x@example"}
	})
	id := certs.Identify(c)
	const want = `DNS:a.example,DNS:b\2CDNS:admin.example,DNS:c\5C2Cd\20\22e\22,IP:192.0.2.1,IP:2001:db8::1,URI:spiffe://example/a\2Cb,email:x@example`
	if id.SubjectAltNames != want || id.Serial != "beef" || len(id.SHA256Fingerprint) != 64 {
		t.Errorf("%+v", id)
	}
	if n := strings.Count(id.SubjectAltNames, ","); n != 6 {
		t.Errorf("%d commas separate 7 names", n)
	}
}

// A name that is too long is omitted, because a truncated one might equal
// another.
func TestNamesOfAnIdentityAreNeverTruncated(t *testing.T) {
	for n, kept := range map[int]bool{100: true, 680: true, 700: false, 2500: false} {
		c := named(t, pkix.RDNSequence{rdn(oidCN, strings.Repeat("ü", n/2))}, nil)
		got := certs.Identify(c).Subject
		if want := "CN=" + strings.Repeat(`\C3\BC`, n/2); kept && got != want || !kept && got != "" {
			t.Errorf("%d bytes: %d are left", n, len(got))
		}
	}
	for n, kept := range map[int]bool{100: true, 227: true, 240: false, 9000: false} {
		c := named(t, nil, func(c *x509.Certificate) {
			for i := range n {
				c.DNSNames = append(c.DNSNames, fmt.Sprintf("%05d.example", i))
			}
		})
		names := certs.Identify(c).SubjectAltNames
		if got := strings.Count(names, "DNS:"); kept && got != n || !kept && names != "" {
			t.Errorf("%d names: %d are left", n, got)
		}
	}
	if id := certs.Identify(named(t, nil, func(c *x509.Certificate) { c.SerialNumber = new(big.Int).Lsh(big.NewInt(1), 150) })); len(id.Serial) != 38 {
		t.Errorf("serial %q", id.Serial)
	}
}
