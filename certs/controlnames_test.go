package certs_test

import (
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"strings"
	"testing"

	"github.com/drawbridge-gateway/drawbridge/certs"
)

// rawSAN returns a subject alternative name extension with one name, including
// bytes that crypto/x509 does not write.
func rawSAN(t *testing.T, tag int, name string) pkix.Extension {
	t.Helper()
	value, err := asn1.Marshal([]asn1.RawValue{{Class: asn1.ClassContextSpecific, Tag: tag, Bytes: []byte(name)}})
	if err != nil {
		t.Fatal(err)
	}
	return pkix.Extension{Id: asn1.ObjectIdentifier{2, 5, 29, 17}, Value: value}
}

// A name with a NUL or another control character never matches the part before
// that character, and is shown escaped if the certificate can be parsed at all.
func TestControlCharactersInNames(t *testing.T) {
	root := mint(t, caTemplate("root"), ecdsaKey(t), nil)
	const email, dns, uri = 1, 2, 6 // tags of GeneralName (RFC 5280, section 4.2.1.6)
	parsed := 0
	for _, c := range []struct {
		tag  int
		name string
		want string // a name that must not match
	}{
		{dns, "upstream.test\x00.evil.example", "DNS:upstream.test"},
		{dns, "upstream.test\x00", "DNS:upstream.test"},
		{dns, "\x00upstream.test", "DNS:upstream.test"},
		{dns, "upstream.test\n", "DNS:upstream.test"},
		{dns, "upstream.test\r\nX-Admin: 1", "DNS:upstream.test"},
		{dns, "upstream.test\x1b[2K", "DNS:upstream.test"},
		{dns, "upstream\x00.test", "DNS:upstream.test"},
		{dns, "*\x00.test", "DNS:upstream.test"},
		{dns, "upstream.test ", "DNS:upstream.test"},
		{dns, "upstream.test\x7f", "DNS:upstream.test"},
		{dns, "upstream.test\x80", "DNS:upstream.test"},
		{uri, "spiffe://upstream.test/a\x00b", "URI:spiffe://upstream.test/a"},
		{uri, "spiffe://upstream.test\x00.evil.example/a", "URI:spiffe://upstream.test/a"},
		{uri, "spiffe://upstream.test/a\n", "URI:spiffe://upstream.test/a"},
		{email, "ops@upstream.test\x00.evil.example", "email:ops@upstream.test"},
		{email, "ops\x00@upstream.test", "email:ops@upstream.test"},
		{email, "ops@upstream.test\r\n", "email:ops@upstream.test"},
	} {
		template := serverTemplate()
		template.DNSNames, template.ExtraExtensions = nil, []pkix.Extension{rawSAN(t, c.tag, c.name)}
		key := ecdsaKey(t)
		der, err := x509.CreateCertificate(rand.Reader, template, root.leaf, key.Public(), root.key)
		if err != nil {
			t.Fatal(err)
		}
		leaf, err := x509.ParseCertificate(der)
		if err != nil {
			if _, err := certs.ParseTrustBundle(block("CERTIFICATE", der)); err == nil {
				t.Errorf("%q is accepted in a file, and not by crypto/x509", c.name)
			} else {
				checkText(t, err.Error())
			}
			continue // crypto/tls rejects a peer that presents this certificate
		}
		parsed++
		chain := (&issuedKey{leaf, key}).chain()
		sans, err := certs.ParseSANs([]string{c.want})
		if err != nil {
			t.Fatal(err)
		}
		if sans[0].Matches(leaf) {
			t.Errorf("%q has the name %s", c.name, c.want)
		}
		if err := verifyServer(t, chain, root.trust(t)); err == nil {
			t.Errorf("%q is accepted for upstream.test", c.name)
		} else {
			checkText(t, certs.ErrorText(err))
		}
		info := certs.Describe([]*x509.Certificate{leaf})
		if len(info.SANs) != 1 {
			t.Fatalf("%q is described as %q", c.name, info.SANs)
		}
		checkText(t, info.SANs[0])
		if strings.Contains(c.name, "\x00") && !strings.Contains(info.SANs[0], `\x00`) && !strings.Contains(info.SANs[0], "%00") {
			t.Errorf("%q is shown as %q, without its NUL", c.name, info.SANs[0])
		}
		checkText(t, certs.Identify(leaf).SubjectAltNames)
	}
	if parsed < 8 {
		t.Errorf("crypto/x509 parses only %d of the certificates", parsed)
	}
}
