package certs_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"io"
	"math/big"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/drawbridge-gateway/drawbridge/certs"
	"github.com/drawbridge-gateway/drawbridge/certs/certstest"
)

// A node is a certificate and its key, made without pki because pki cannot make
// them.
type node struct {
	cert *x509.Certificate
	key  crypto.Signer
}

// issue makes a certificate for a server and a client, valid for 90 days, with
// the changes of change. A nil parent makes it self-signed.
func issue(t testing.TB, parent *node, name string, change func(*x509.Certificate)) *node {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return issueFor(t, parent, name, key, change)
}

func issueFor(t testing.TB, parent *node, name string, key crypto.Signer, change func(*x509.Certificate)) *node {
	t.Helper()
	serial, err := rand.Int(rand.Reader, big.NewInt(1<<62))
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: name}, DNSNames: []string{"a.test"}, KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		NotBefore:   time.Now().Add(-time.Hour), NotAfter: time.Now().Add(90 * 24 * time.Hour), BasicConstraintsValid: true,
	}
	if change != nil {
		change(template)
	}
	if parent == nil {
		parent = &node{template, key}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent.cert, key.Public(), parent.key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &node{cert, key}
}

func authority(c *x509.Certificate) {
	c.IsCA, c.DNSNames, c.ExtKeyUsage, c.KeyUsage = true, nil, nil, x509.KeyUsageCertSign
}

func (n *node) pem() []byte { return block("CERTIFICATE", n.cert.Raw) }

// parse returns the certificate with the rest of its chain, or its own chain
// if rest is empty.
func (n *node) parse(t testing.TB, chain ...*node) *certs.Certificate {
	t.Helper()
	if len(chain) == 0 {
		chain = []*node{n}
	}
	var text []byte
	for _, c := range chain {
		text = append(text, c.pem()...)
	}
	parsed, err := certs.ParseCertificate(text, pkcs8PEM(t, n.key))
	if err != nil {
		t.Fatal(err)
	}
	return parsed
}

func wantFindings(t *testing.T, got []certs.Finding, warnings []string, want ...certs.Finding) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("findings %v, want %v", got, want)
	}
	if len(warnings) != len(got) {
		t.Errorf("findings %v, but warnings %q", got, warnings)
	}
	for _, w := range warnings {
		checkText(t, w)
	}
}

// Each finding has a certificate that causes only this finding.
func TestFindings(t *testing.T) {
	day := 24 * time.Hour
	now := time.Now()
	root := issue(t, nil, "root", authority)
	middle := issue(t, root, "middle", authority)
	lower := issue(t, middle, "lower", authority)
	leaf := issue(t, lower, "leaf", nil)
	stranger := issue(t, root, "stranger", nil)
	weak, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	strong, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	rsaRoot := issueFor(t, nil, "RSA root", strong, authority)
	sha1 := issueFor(t, nil, "SHA-1", strong, nil)
	sha1.cert.SignatureAlgorithm, sha1.cert.RawIssuer = x509.SHA1WithRSA, rsaRoot.cert.RawSubject
	with := func(change func(*x509.Certificate)) *certs.Certificate {
		return issue(t, root, "leaf", change).parse(t)
	}
	issuer := func(name string, change func(*x509.Certificate)) *certs.Certificate {
		return issue(t, issue(t, root, name, authority), "leaf", change).parse(t)
	}
	for _, c := range []struct {
		name string
		cert *certs.Certificate
		want []certs.Finding
	}{
		{"an ordinary certificate", with(nil), nil},
		{"a whole chain", leaf.parse(t, leaf, lower, middle), nil},
		{"a whole chain and its root", leaf.parse(t, leaf, lower, middle, root), nil},
		{"a whole chain in reverse order", leaf.parse(t, root, middle, lower, leaf), []certs.Finding{certs.FindingOrderCorrected}},
		{"the leaf twice", leaf.parse(t, leaf, leaf, lower, middle), []certs.Finding{certs.FindingDuplicate}},
		{"an intermediate twice", leaf.parse(t, leaf, lower, lower, middle), []certs.Finding{certs.FindingDuplicate}},
		{"an unrelated certificate", leaf.parse(t, leaf, lower, stranger, middle), []certs.Finding{certs.FindingUnrelated}},
		{"an unrelated certificate first, and the wrong order", leaf.parse(t, stranger, middle, lower, leaf), []certs.Finding{certs.FindingOrderCorrected, certs.FindingUnrelated}},
		{"a missing intermediate", leaf.parse(t, leaf, middle), []certs.Finding{certs.FindingUnrelated, certs.FindingMissingIntermediate}},
		{"a missing issuer below the root", leaf.parse(t, leaf, lower, root), []certs.Finding{certs.FindingUnrelated, certs.FindingMissingIntermediate}},
		{"an issuer that is an intermediate by its name", issuer("Corp Issuing CA 1", nil), []certs.Finding{certs.FindingMissingIntermediate}},
		{"an issuer with a URL", with(func(c *x509.Certificate) { c.IssuingCertificateURL = []string{"http://ca.test/ca.crt"} }), []certs.Finding{certs.FindingMissingIntermediate}},
		{"an issuer that is an intermediate by its key identifier", with(func(c *x509.Certificate) {
			c.ExtraExtensions = []pkix.Extension{authorityKeyID(t, middle.cert.RawSubject)}
		}), []certs.Finding{certs.FindingMissingIntermediate}},
		{"an issuer that is a root by its key identifier", with(func(c *x509.Certificate) {
			c.ExtraExtensions = []pkix.Extension{authorityKeyID(t, root.cert.RawSubject)}
			c.IssuingCertificateURL = []string{"http://ca.test/ca.crt"}
		}), nil},
		{"no name", with(func(c *x509.Certificate) { c.DNSNames = nil }), []certs.Finding{certs.FindingNoSAN}},
		{"a client without a name", with(func(c *x509.Certificate) {
			c.DNSNames, c.ExtKeyUsage = nil, []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
		}), nil},
		{"a weak key", issueFor(t, root, "leaf", weak, nil).parse(t), []certs.Finding{certs.FindingWeakKey}},
		{"near expiry", with(func(c *x509.Certificate) { c.NotAfter = now.Add(5 * day) }), []certs.Finding{certs.FindingNearExpiry}},
		{"expired", with(func(c *x509.Certificate) { c.NotBefore, c.NotAfter = now.Add(-9*day), now.Add(-day) }), []certs.Finding{certs.FindingExpired}},
		{"not yet valid", with(func(c *x509.Certificate) { c.NotBefore = now.Add(day) }), []certs.Finding{certs.FindingNotYetValid}},
		{"the longest lifetime without a finding", with(func(c *x509.Certificate) { c.NotBefore, c.NotAfter = now.Add(-day), now.Add(397*day) }), nil},
		{"a longer lifetime", with(func(c *x509.Certificate) { c.NotBefore, c.NotAfter = now.Add(-2*day), now.Add(397*day) }), []certs.Finding{certs.FindingLongLifetime}},
		{"a client for ten years", with(func(c *x509.Certificate) {
			c.NotAfter, c.ExtKeyUsage = now.Add(3650*day), []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
		}), nil},
		{"a CA", root.parse(t), []certs.Finding{certs.FindingCAAsLeaf}},
		{"many names", with(func(c *x509.Certificate) { c.DNSNames = slices.Repeat([]string{"a.test"}, 101) }), []certs.Finding{certs.FindingManyNames}},
	} {
		t.Run(c.name, func(t *testing.T) {
			info := c.cert.Info()
			wantFindings(t, info.Findings, info.Warnings, c.want...)
		})
	}
	t.Run("a weak signature", func(t *testing.T) { // Go cannot make one
		info := certs.Describe([]*x509.Certificate{sha1.cert})
		wantFindings(t, info.Findings, info.Warnings, certs.FindingWeakSignature)
	})
	t.Run("not a CA in a bundle", func(t *testing.T) {
		b, err := certs.ParseTrustBundle(issue(t, nil, "self", nil).pem())
		if err != nil {
			t.Fatal(err)
		}
		info := b.Infos()[0]
		wantFindings(t, info.Findings, info.Warnings, certs.FindingNotACA)
	})
	t.Run("a CA twice in a bundle", func(t *testing.T) {
		b, err := certs.ParseTrustBundle(join(root.pem(), middle.pem(), root.pem(), root.pem()))
		if err != nil {
			t.Fatal(err)
		}
		infos := b.Infos()
		wantFindings(t, infos[0].Findings, infos[0].Warnings, certs.FindingDuplicate)
		wantFindings(t, infos[1].Findings, infos[1].Warnings)
	})
	t.Run("a missing issuer is named", func(t *testing.T) {
		info := leaf.parse(t, leaf, lower, root).Info()
		if w := strings.Join(info.Warnings, " "); !strings.Contains(w, `ends with "CN=lower"`) || !strings.Contains(w, `issuer "CN=middle"`) {
			t.Error(w)
		}
	})
}

// authorityKeyID returns the extension that identifies the issuer's
// certificate by its issuer and serial number.
func authorityKeyID(t testing.TB, name []byte) pkix.Extension {
	t.Helper()
	value, err := asn1.Marshal(struct {
		Issuer []asn1.RawValue `asn1:"tag:1"`
		Serial int             `asn1:"tag:2"`
	}{[]asn1.RawValue{{Class: asn1.ClassContextSpecific, Tag: 4, IsCompound: true, Bytes: name}}, 7})
	if err != nil {
		t.Fatal(err)
	}
	return pkix.Extension{Id: asn1.ObjectIdentifier{2, 5, 29, 35}, Value: value}
}

// The findings depend on the use of the certificate.
func TestUseFindings(t *testing.T) {
	server, client := x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth
	root := issue(t, nil, "root", authority)
	onlyServers := issue(t, root, "middle", func(c *x509.Certificate) { authority(c); c.ExtKeyUsage = []x509.ExtKeyUsage{server} })
	below := issue(t, onlyServers, "leaf", nil)
	with := func(change func(*x509.Certificate)) *certs.Certificate {
		return issue(t, root, "leaf", change).parse(t)
	}
	for _, c := range []struct {
		name             string
		cert             *certs.Certificate
		client, server   []certs.Finding
		inClient, inBoth string
	}{
		{"for servers and clients", with(nil), nil, nil, "", ""},
		{"for any usage", with(func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageAny} }), nil, nil, "", ""},
		{"without usages", with(func(c *x509.Certificate) { c.ExtKeyUsage, c.KeyUsage = nil, 0 }), nil, nil, "", ""},
		{"for servers", with(func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{server} }), []certs.Finding{certs.FindingNoClientAuth}, nil, "serverAuth, without clientAuth", ""},
		{"for clients", with(func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{client} }), nil, []certs.Finding{certs.FindingNoServerAuth}, "", ""},
		{"for clients, without a name", with(func(c *x509.Certificate) { c.ExtKeyUsage, c.DNSNames = []x509.ExtKeyUsage{client}, nil }), nil, []certs.Finding{certs.FindingNoServerAuth, certs.FindingNoSAN}, "", ""},
		{"neither for servers nor for clients", with(func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageEmailProtection} }),
			[]certs.Finding{certs.FindingNoClientAuth}, []certs.Finding{certs.FindingNoServerAuth}, "emailProtection", "emailProtection"},
		{"a key that may not sign", with(func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageKeyEncipherment }),
			[]certs.Finding{certs.FindingNoClientAuth}, []certs.Finding{certs.FindingNoServerAuth}, "digitalSignature", "digitalSignature"},
		{"an intermediate for servers", below.parse(t, below, onlyServers), []certs.Finding{certs.FindingNoClientAuth}, nil, `its intermediate "CN=middle"`, ""},
		{"a CA", root.parse(t), []certs.Finding{certs.FindingNoClientAuth}, []certs.Finding{certs.FindingNoServerAuth, certs.FindingNoSAN}, "digitalSignature", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			f, w := c.cert.UseFindings(certs.AsClient)
			wantFindings(t, f, w, c.client...)
			if text := strings.Join(w, "; "); !strings.Contains(text, c.inClient) || !strings.Contains(text, c.inBoth) {
				t.Errorf("as a client: %s", text)
			}
			f, w = c.cert.UseFindings(certs.AsServer)
			wantFindings(t, f, w, c.server...)
			if text := strings.Join(w, "; "); !strings.Contains(text, c.inBoth) {
				t.Errorf("as a server: %s", text)
			}
		})
	}
}

func TestLeadsTo(t *testing.T) {
	bundle := func(n *node) *certs.TrustBundle {
		b, err := certs.ParseTrustBundle(n.pem())
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	root := issue(t, nil, "root", authority)
	middle := issue(t, root, "middle", authority)
	leaf := issue(t, middle, "leaf", nil)
	impostor := issue(t, nil, "root", authority) // the same name with another key
	self := issue(t, nil, "self", nil)
	old := issue(t, nil, "old", func(c *x509.Certificate) { authority(c); c.NotAfter = time.Now().Add(time.Hour) })
	fromOld := issue(t, old, "leaf", func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) })
	for _, c := range []struct {
		name    string
		cert    *certs.Certificate
		bundles []*certs.TrustBundle
		want    bool
	}{
		{"the root, which is not sent", leaf.parse(t, leaf, middle), []*certs.TrustBundle{bundle(root)}, true},
		{"the root, which is sent", leaf.parse(t, leaf, middle, root), []*certs.TrustBundle{bundle(root)}, true},
		{"the intermediate", leaf.parse(t, leaf), []*certs.TrustBundle{bundle(middle)}, true},
		{"the second of two", leaf.parse(t, leaf, middle), []*certs.TrustBundle{bundle(self), bundle(root)}, true},
		{"a self-signed certificate", self.parse(t), []*certs.TrustBundle{bundle(self)}, true},
		{"an expired CA", fromOld.parse(t), []*certs.TrustBundle{bundle(old)}, true},
		{"a chain with a missing intermediate", leaf.parse(t, leaf), []*certs.TrustBundle{bundle(root)}, false},
		{"another CA of the same name", leaf.parse(t, leaf, middle), []*certs.TrustBundle{bundle(impostor)}, false},
		{"another CA", leaf.parse(t, leaf, middle), []*certs.TrustBundle{bundle(self)}, false},
		{"no bundle", leaf.parse(t, leaf, middle), nil, false},
	} {
		if got := c.cert.LeadsTo(c.bundles...); got != c.want {
			t.Errorf("%s: %v", c.name, got)
		}
	}
}

// Verifying with a key of a million bits takes minutes.
func TestCertificatesWithAbsurdKeysAreRefused(t *testing.T) {
	modulus := new(big.Int).Lsh(big.NewInt(1), 20_000)
	modulus.SetBit(modulus, 0, 1)
	root := issue(t, nil, "root", authority)
	big := issueFor(t, root, "big", absurdKey{&rsa.PublicKey{N: modulus, E: 65537}}, nil)
	issued := certstest.NewCA(t).Server(t, "a.test")
	for name, chain := range map[string][]byte{"PEM": join(issued.ChainPEM, big.pem()), "DER": join(issued.Leaf.Raw, big.cert.Raw)} {
		_, err := certs.ParseCertificate(chain, issued.KeyPEM)
		if p := wantFault(t, err, "certificate_chain").Problem; !strings.Contains(p, "certificate 2 has an RSA key of 20001 bits") {
			t.Errorf("%s: %s", name, p)
		}
	}
}

// An absurdKey is a public key that can be certified but is unusable.
type absurdKey struct{ public *rsa.PublicKey }

func (k absurdKey) Public() crypto.PublicKey { return k.public }

func (k absurdKey) Sign(_ io.Reader, _ []byte, _ crypto.SignerOpts) ([]byte, error) {
	panic("a certificate is signed by its issuer")
}
