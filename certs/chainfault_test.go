package certs_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"math/big"
	"net"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/drawbridge-gateway/drawbridge/certs"
	"github.com/drawbridge-gateway/drawbridge/certs/certstest"
)

// An issuedKey is a certificate with its key.
type issuedKey struct {
	leaf *x509.Certificate
	key  crypto.Signer
}

func (m *issuedKey) pem() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: m.leaf.Raw})
}

func (m *issuedKey) trust(t *testing.T) *certs.TrustBundle {
	t.Helper()
	b, err := certs.ParseTrustBundle(m.pem())
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func (m *issuedKey) chain(above ...*issuedKey) tls.Certificate {
	c := tls.Certificate{Certificate: [][]byte{m.leaf.Raw}, PrivateKey: m.key}
	for _, a := range above {
		c.Certificate = append(c.Certificate, a.leaf.Raw)
	}
	return c
}

func ecdsaKey(t *testing.T) crypto.Signer {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func rsaKey(t *testing.T) *rsa.PrivateKey {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// caTemplate and serverTemplate return ordinary certificates, which test cases
// change.
func caTemplate(name string) *x509.Certificate {
	return &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		BasicConstraintsValid: true, IsCA: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
}

func serverTemplate() *x509.Certificate {
	return &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: "leaf"}, DNSNames: []string{"upstream.test"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
}

// mint signs a template with the issuer's key. Without an issuer the certificate
// is self-signed.
func mint(t *testing.T, template *x509.Certificate, key crypto.Signer, issuer *issuedKey) *issuedKey {
	t.Helper()
	parent, signer := template, key
	if issuer != nil {
		parent, signer = issuer.leaf, issuer.key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), signer)
	if err != nil {
		t.Fatal(err)
	}
	return parseMinted(t, der, key)
}

func parseMinted(t *testing.T, der []byte, key crypto.Signer) *issuedKey {
	t.Helper()
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &issuedKey{leaf, key}
}

// tbsCertificate is the structure of RFC 5280, section 4.1, for certificates
// that x509 cannot create. Its raw parts may be malformed.
type tbsCertificate struct {
	Version    int `asn1:"optional,explicit,default:0,tag:0"`
	Serial     asn1.RawValue
	Algorithm  pkix.AlgorithmIdentifier
	Issuer     asn1.RawValue
	Validity   asn1.RawValue
	Subject    asn1.RawValue
	PublicKey  asn1.RawValue
	Extensions []pkix.Extension `asn1:"optional,explicit,tag:3"`
}

// remint changes a certificate and signs it again with the given algorithm.
func remint(t *testing.T, m *issuedKey, algorithm pkix.AlgorithmIdentifier, change func(*tbsCertificate), sign func(tbs []byte) ([]byte, error)) *issuedKey {
	t.Helper()
	return parseMinted(t, remintDER(t, m, algorithm, change, sign), m.key)
}

// remintDER is remint for a certificate that x509 may be unable to parse.
func remintDER(t *testing.T, m *issuedKey, algorithm pkix.AlgorithmIdentifier, change func(*tbsCertificate), sign func(tbs []byte) ([]byte, error)) []byte {
	t.Helper()
	var tbs tbsCertificate
	if _, err := asn1.Unmarshal(m.leaf.RawTBSCertificate, &tbs); err != nil {
		t.Fatal(err)
	}
	tbs.Algorithm = algorithm
	if change != nil {
		change(&tbs)
	}
	raw, err := asn1.Marshal(tbs)
	if err != nil {
		t.Fatal(err)
	}
	signature, err := sign(raw)
	if err != nil {
		t.Fatal(err)
	}
	der, err := asn1.Marshal(struct {
		TBS       asn1.RawValue
		Algorithm pkix.AlgorithmIdentifier
		Signature asn1.BitString
	}{asn1.RawValue{FullBytes: raw}, algorithm, asn1.BitString{Bytes: signature, BitLength: 8 * len(signature)}})
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func signECDSA(key crypto.Signer) (pkix.AlgorithmIdentifier, func([]byte) ([]byte, error)) {
	return pkix.AlgorithmIdentifier{Algorithm: asn1.ObjectIdentifier{1, 2, 840, 10045, 4, 3, 2}}, func(tbs []byte) ([]byte, error) {
		sum := sha256.Sum256(tbs)
		return key.Sign(rand.Reader, sum[:], crypto.SHA256)
	}
}

// version1 returns a self-signed certificate of version 1, which has no
// extensions.
func version1(t *testing.T) *issuedKey {
	t.Helper()
	key := ecdsaKey(t)
	algorithm, sign := signECDSA(key)
	return remint(t, mint(t, caTemplate("version 1"), key, nil), algorithm, func(tbs *tbsCertificate) { tbs.Version, tbs.Extensions = 0, nil }, sign)
}

// verifyServer returns the error of a client that trusts b for a server that
// presents chain.
func verifyServer(t *testing.T, chain tls.Certificate, b *certs.TrustBundle) error {
	t.Helper()
	c, err := certs.NewClient(certs.ClientOptions{Trust: []*certs.TrustBundle{b}, ServerName: "upstream.test"})
	if err != nil {
		t.Fatal(err)
	}
	_, err = connect(t, c, serveConfig(t, &tls.Config{Certificates: []tls.Certificate{chain}}).addr)
	return err
}

func TestChainFaultsAreExplainedByTheirCause(t *testing.T) {
	rsaRoot := mint(t, caTemplate("RSA root"), rsaKey(t), nil)
	root := mint(t, caTemplate("root"), ecdsaKey(t), nil)
	for _, tt := range []struct {
		name  string
		chain func(t *testing.T) (tls.Certificate, *issuedKey) // the presented chain, and the bundle that the client trusts
		want  certs.Reason
		says  []string
	}{
		{
			"a version-1 certificate is not a CA", func(t *testing.T) (tls.Certificate, *issuedKey) {
				v1 := version1(t)
				return mint(t, serverTemplate(), ecdsaKey(t), v1).chain(), v1
			}, certs.ReasonUnknownCA, []string{`"CN=leaf" was issued by "CN=version 1", which is trusted`, "is not a CA"},
		},
		{
			"a version-1 certificate is not an intermediate", func(t *testing.T) (tls.Certificate, *issuedKey) {
				key := ecdsaKey(t)
				below := mint(t, caTemplate("below"), key, root)
				algorithm, sign := signECDSA(root.key)
				v1 := remint(t, below, algorithm, func(tbs *tbsCertificate) { tbs.Version, tbs.Extensions = 0, nil }, sign)
				return mint(t, serverTemplate(), ecdsaKey(t), v1).chain(v1), root
			}, certs.ReasonUnknownCA, []string{"is not a CA"},
		},
		{
			"a CA without keyCertSign", func(t *testing.T) (tls.Certificate, *issuedKey) {
				template := caTemplate("no keyCertSign")
				template.KeyUsage = x509.KeyUsageDigitalSignature
				ca := mint(t, template, ecdsaKey(t), nil)
				return mint(t, serverTemplate(), ecdsaKey(t), ca).chain(), ca
			}, certs.ReasonUnknownCA, []string{"which is trusted, but", "lacks keyCertSign"},
		},
		{
			"a certificate without basicConstraints is not a CA", func(t *testing.T) (tls.Certificate, *issuedKey) {
				template := caTemplate("no basicConstraints")
				template.BasicConstraintsValid, template.IsCA, template.KeyUsage = false, false, 0
				ca := mint(t, template, ecdsaKey(t), nil)
				return mint(t, serverTemplate(), ecdsaKey(t), ca).chain(), ca
			}, certs.ReasonUnknownCA, []string{"is not a CA"},
		},
		{
			"signed with SHA-1", func(t *testing.T) (tls.Certificate, *issuedKey) {
				return signedWithSHA1(t, rsaRoot), rsaRoot
			}, certs.ReasonUnknownCA, []string{"SHA1-RSA", "too weak"},
		},
		{
			"signed with an unusual PSS salt", func(t *testing.T) (tls.Certificate, *issuedKey) {
				return signedWithSalt(t, rsaRoot, 50), rsaRoot
			}, certs.ReasonUnknownCA, []string{"unusual salt length", "not supported"},
		},
		{
			"another CA of the same name", func(t *testing.T) (tls.Certificate, *issuedKey) {
				return mint(t, serverTemplate(), ecdsaKey(t), mint(t, caTemplate("root"), ecdsaKey(t), nil)).chain(), root
			}, certs.ReasonUnknownCA, []string{"a CA of that name is trusted, but its key has not signed it"},
		},
		{
			"an intermediate restricted to clientAuth", func(t *testing.T) (tls.Certificate, *issuedKey) {
				template := caTemplate("for clients")
				template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
				below := mint(t, template, ecdsaKey(t), root)
				return mint(t, serverTemplate(), ecdsaKey(t), below).chain(below), root
			}, certs.ReasonWrongKeyUsage, []string{`the CA "CN=for clients" may not be used for serverAuth, only for clientAuth`},
		},
		{
			"names that the CA's constraints exclude", func(t *testing.T) (tls.Certificate, *issuedKey) {
				template := caTemplate("constrained")
				template.PermittedDNSDomains, template.PermittedDNSDomainsCritical = []string{"elsewhere.test"}, true
				below := mint(t, template, ecdsaKey(t), root)
				return mint(t, serverTemplate(), ecdsaKey(t), below).chain(below), root
			}, certs.ReasonBadCertificate, []string{`the CA "CN=constrained" excludes a name of`, "name constraints", "upstream.test"},
		},
		{
			"an unknown critical extension of an intermediate", func(t *testing.T) (tls.Certificate, *issuedKey) {
				template := caTemplate("odd")
				template.ExtraExtensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{1, 2, 3, 4}, Critical: true, Value: []byte{5, 0}}}
				below := mint(t, template, ecdsaKey(t), root)
				return mint(t, serverTemplate(), ecdsaKey(t), below).chain(below), root
			}, certs.ReasonBadCertificate, []string{`the CA "CN=odd" has the critical extension 1.2.3.4`},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			chain, trusted := tt.chain(t)
			err := verifyServer(t, chain, trusted.trust(t))
			if got := certs.Classify(err); err == nil || got != tt.want {
				t.Fatalf("%v is %s, want %s", err, got, tt.want)
			}
			for _, want := range tt.says {
				if !strings.Contains(certs.ErrorText(err), want) {
					t.Errorf("%v does not say %q", err, want)
				}
			}
		})
	}
}

// pssParameters are RSASSA-PSS-params of RFC 4055 with SHA-256.
func pssParameters(t *testing.T, salt int) asn1.RawValue {
	t.Helper()
	sha256ID := pkix.AlgorithmIdentifier{Algorithm: asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 2, 1}, Parameters: asn1.NullRawValue}
	hash, err := asn1.Marshal(sha256ID)
	if err != nil {
		t.Fatal(err)
	}
	der, err := asn1.Marshal(struct {
		Hash pkix.AlgorithmIdentifier `asn1:"explicit,tag:0"`
		MGF  pkix.AlgorithmIdentifier `asn1:"explicit,tag:1"`
		Salt int                      `asn1:"explicit,tag:2"`
	}{sha256ID, pkix.AlgorithmIdentifier{Algorithm: asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 8}, Parameters: asn1.RawValue{FullBytes: hash}}, salt})
	if err != nil {
		t.Fatal(err)
	}
	return asn1.RawValue{FullBytes: der}
}

// A pinned certificate of any version matches itself.
func TestAPinnedCertificateMatchesItself(t *testing.T) {
	v1 := version1(t)
	b := v1.trust(t)
	// The certificate has no names, so only the chain is verified.
	err := verifyServer(t, v1.chain(), b)
	if got := certs.Classify(err); got != certs.ReasonNameMismatch {
		t.Errorf("%v is %s, want %s: the chain passes and the name does not", err, got, certs.ReasonNameMismatch)
	}
	if w := strings.Join(b.Infos()[0].Warnings, "\n"); !strings.Contains(w, "verifies only itself") {
		t.Errorf("the warnings are %q", w)
	}
}

// A client certificate issued by a version-1 certificate is rejected too.
func TestAVersion1CertificateCannotIssueClientCertificates(t *testing.T) {
	v1 := version1(t)
	ca := certstest.NewCA(t)
	server := newServer(t, certs.ServerOptions{
		Certificates: []*certs.Certificate{certstest.Certificate(t, ca.Server(t, "upstream.test"))},
		ClientAuth:   certs.ClientAuthRequired,
		ClientTrust:  []*certs.TrustBundle{v1.trust(t)},
	})
	s := serve(t, server.Conn)
	conn, err := tls.Dial("tcp", s.addr, &tls.Config{
		RootCAs: ca.Pool(), ServerName: "upstream.test",
		Certificates: []tls.Certificate{mint(t, serverTemplate(), ecdsaKey(t), v1).chain()},
	})
	if err == nil {
		defer conn.Close()
		conn.Read(make([]byte, 1))
	}
	if got := <-s.handshakes; certs.Classify(got.err) != certs.ReasonUnknownCA {
		t.Errorf("the server says %v, want %s", got.err, certs.ReasonUnknownCA)
	}
}

func TestACAThatMayNotSignCausesAWarning(t *testing.T) {
	template := caTemplate("no keyCertSign")
	template.KeyUsage = x509.KeyUsageDigitalSignature
	info := mint(t, template, ecdsaKey(t), nil).trust(t).Infos()[0]
	if !slices.Contains(info.Findings, certs.FindingCannotSign) {
		t.Errorf("the findings are %v, want %v among them", info.Findings, certs.FindingCannotSign)
	}
}

// The cases cover permitted and excluded subtrees of each supported kind (RFC 5280,
// section 4.2.1.10).
func TestNameConstraints(t *testing.T) {
	ip := func(cidr string) *net.IPNet {
		_, n, err := net.ParseCIDR(cidr)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	uri := func(s string) *url.URL {
		u, err := url.Parse(s)
		if err != nil {
			t.Fatal(err)
		}
		return u
	}
	root := mint(t, caTemplate("root"), ecdsaKey(t), nil)
	for _, tt := range []struct {
		name      string
		constrain func(*x509.Certificate)
		leaf      func(*x509.Certificate)
		passes    bool
	}{
		{"a permitted DNS name", func(c *x509.Certificate) { c.PermittedDNSDomains = []string{"test"} }, nil, true},
		{"a DNS name outside the permitted domains", func(c *x509.Certificate) { c.PermittedDNSDomains = []string{"example"} }, nil, false},
		{"an excluded DNS name", func(c *x509.Certificate) { c.ExcludedDNSDomains = []string{"upstream.test"} }, nil, false},
		{"another DNS name is excluded", func(c *x509.Certificate) { c.ExcludedDNSDomains = []string{"other.test"} }, nil, true},
		{
			"a permitted address", func(c *x509.Certificate) { c.PermittedIPRanges = []*net.IPNet{ip("10.0.0.0/8")} },
			func(c *x509.Certificate) { c.IPAddresses = []net.IP{net.IPv4(10, 1, 2, 3)} }, true,
		},
		{
			"an address outside the permitted ranges", func(c *x509.Certificate) { c.PermittedIPRanges = []*net.IPNet{ip("10.0.0.0/8")} },
			func(c *x509.Certificate) { c.IPAddresses = []net.IP{net.IPv4(192, 0, 2, 1)} }, false,
		},
		{
			"an excluded address", func(c *x509.Certificate) { c.ExcludedIPRanges = []*net.IPNet{ip("192.0.2.0/24")} },
			func(c *x509.Certificate) { c.IPAddresses = []net.IP{net.IPv4(192, 0, 2, 1)} }, false,
		},
		{
			"a permitted URI", func(c *x509.Certificate) { c.PermittedURIDomains = []string{"example.test"} },
			func(c *x509.Certificate) { c.URIs = []*url.URL{uri("spiffe://example.test/a")} }, true,
		},
		{
			"an excluded URI", func(c *x509.Certificate) { c.ExcludedURIDomains = []string{"example.test"} },
			func(c *x509.Certificate) { c.URIs = []*url.URL{uri("spiffe://example.test/a")} }, false,
		},
		{
			"a URI outside the permitted hosts", func(c *x509.Certificate) { c.PermittedURIDomains = []string{"example.test"} },
			func(c *x509.Certificate) { c.URIs = []*url.URL{uri("spiffe://other.test/a")} }, false,
		},
		{
			"another URI is excluded", func(c *x509.Certificate) { c.ExcludedURIDomains = []string{"example.test"} },
			func(c *x509.Certificate) { c.URIs = []*url.URL{uri("spiffe://other.test/a")} }, true,
		},
		{
			"another address is excluded", func(c *x509.Certificate) { c.ExcludedIPRanges = []*net.IPNet{ip("192.0.2.0/24")} },
			func(c *x509.Certificate) { c.IPAddresses = []net.IP{net.IPv4(10, 1, 2, 3)} }, true,
		},
		{
			"a permitted IPv6 address", func(c *x509.Certificate) { c.PermittedIPRanges = []*net.IPNet{ip("2001:db8::/32")} },
			func(c *x509.Certificate) { c.IPAddresses = []net.IP{net.ParseIP("2001:db8::1")} }, true,
		},
		{
			"an IPv4 address where IPv6 is permitted", func(c *x509.Certificate) { c.PermittedIPRanges = []*net.IPNet{ip("2001:db8::/32")} },
			func(c *x509.Certificate) { c.IPAddresses = []net.IP{net.IPv4(10, 1, 2, 3)} }, false,
		},
		{
			"a permitted mailbox", func(c *x509.Certificate) { c.PermittedEmailAddresses = []string{"example.test"} },
			func(c *x509.Certificate) { c.EmailAddresses = []string{"ops@example.test"} }, true,
		},
		{
			"a mailbox outside the permitted domains", func(c *x509.Certificate) { c.PermittedEmailAddresses = []string{"example.test"} },
			func(c *x509.Certificate) { c.EmailAddresses = []string{"ops@other.test"} }, false,
		},
		{
			"an excluded mailbox", func(c *x509.Certificate) { c.ExcludedEmailAddresses = []string{"ops@example.test"} },
			func(c *x509.Certificate) { c.EmailAddresses = []string{"ops@example.test"} }, false,
		},
		{"a name excluded within a permitted domain", func(c *x509.Certificate) {
			c.PermittedDNSDomains, c.ExcludedDNSDomains = []string{"test"}, []string{"upstream.test"}
		}, nil, false},
		{"a wildcard that reaches an excluded name", func(c *x509.Certificate) { c.ExcludedDNSDomains = []string{"secret.upstream.test"} },
			func(c *x509.Certificate) { c.DNSNames = []string{"upstream.test", "*.upstream.test"} }, false},
		{"permitted directory names, which are not supported", func(c *x509.Certificate) {
			c.ExtraExtensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 30}, Critical: true, Value: directoryConstraint(t, 0)}}
		}, nil, false},
		{"excluded directory names, which are not supported", func(c *x509.Certificate) {
			c.ExtraExtensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 30}, Critical: true, Value: directoryConstraint(t, 1)}}
		}, nil, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			ca, leaf := caTemplate("constrained"), serverTemplate()
			tt.constrain(ca)
			ca.PermittedDNSDomainsCritical = true
			if tt.leaf != nil {
				tt.leaf(leaf)
			}
			below := mint(t, ca, ecdsaKey(t), root)
			err := verifyServer(t, mint(t, leaf, ecdsaKey(t), below).chain(below), root.trust(t))
			if (err == nil) != tt.passes {
				t.Fatalf("error %v, want acceptance: %v", err, tt.passes)
			}
			if !tt.passes && (certs.Classify(err) != certs.ReasonBadCertificate || !strings.Contains(err.Error(), "CN=constrained")) {
				t.Errorf("%v does not blame the CA", err)
			}
		})
	}
}

// directoryConstraint permits (tag 0) or excludes (tag 1) the directory name
// O=Example.
func directoryConstraint(t *testing.T, tag int) []byte {
	t.Helper()
	name, err := asn1.Marshal(pkix.Name{Organization: []string{"Example"}}.ToRDNSequence())
	if err != nil {
		t.Fatal(err)
	}
	general := asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: 4, IsCompound: true, Bytes: name}
	subtree := struct{ Base asn1.RawValue }{general}
	subtrees := struct {
		Permitted []struct{ Base asn1.RawValue } `asn1:"optional,tag:0"`
		Excluded  []struct{ Base asn1.RawValue } `asn1:"optional,tag:1"`
	}{}
	if tag == 0 {
		subtrees.Permitted = append(subtrees.Permitted, subtree)
	} else {
		subtrees.Excluded = append(subtrees.Excluded, subtree)
	}
	value, err := asn1.Marshal(subtrees)
	if err != nil {
		t.Fatal(err)
	}
	return value
}

// All APIs show the same text for a certificate's subject (RFC 4514, section
// 2.4).
func TestSubjectIsTheSameEverywhere(t *testing.T) {
	template := serverTemplate()
	template.Subject = pkix.Name{CommonName: "a", Organization: []string{"Super, Inc."}}
	leaf := mint(t, template, ecdsaKey(t), nil).leaf
	const want = `CN=a,O=Super\, Inc.`
	if got := certs.Describe([]*x509.Certificate{leaf}).Subject; got != want {
		t.Errorf("Describe says %s, want %s", got, want)
	}
	if got := certs.Identify(leaf).Subject; got != want {
		t.Errorf("Identify says %s, want %s", got, want)
	}
}
