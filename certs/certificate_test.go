package certs_test

import (
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/drawbridge-gateway/drawbridge/certs"
	"github.com/drawbridge-gateway/drawbridge/certs/certstest"
	"github.com/drawbridge-gateway/drawbridge/certs/pki"
)

func block(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}

func join(parts ...[]byte) []byte { return slices.Concat(parts...) }

func TestParseCertificateRefuses(t *testing.T) {
	ca := certstest.NewCA(t)
	good, other := ca.Server(t, "a.test"), ca.Server(t, "b.test")
	der, _ := pem.Decode(good.ChainPEM)
	keyDER, _ := pem.Decode(good.KeyPEM)
	chain, key := good.ChainPEM, good.KeyPEM
	damaged := []byte(strings.Replace(string(chain), "-----END CERT", "-----FIN CERT", 1))
	headless := []byte(strings.Replace(string(chain), "-----BEGIN CERTIFICATE-----\n", "", 1))
	oldEncrypted := pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: keyDER.Bytes,
		Headers: map[string]string{"Proc-Type": "4,ENCRYPTED", "DEK-Info": "AES-256-CBC,00"}})
	agreement, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	x25519, err := x509.MarshalPKCS8PrivateKey(agreement)
	if err != nil {
		t.Fatal(err)
	}
	const inChain, inKey = "certificate_chain", "private_key"
	for _, c := range []struct {
		name       string
		chain, key []byte
		field, say string
	}{
		{"an empty chain", nil, key, inChain, "is empty"},
		{"a blank chain", []byte(" \n\t"), key, inChain, "is empty"},
		{"garbage in place of a chain", []byte("garbage"), key, inChain, "no PEM block"},
		{"damaged DER in place of a chain", der.Bytes[:100], key, inChain, "neither PEM nor DER"},
		{"text after DER", join(der.Bytes, []byte("x")), key, inChain, "after 1 certificate"},
		{"a key in DER in place of a chain", keyDER.Bytes, key, inChain, "remove the key"},
		{"text in UTF-16", join([]byte("\xff\xfe"), chain), key, inChain, "UTF-8"},
		{"a key in place of a chain", key, key, inChain, "private key"},
		{"a key in the chain", join(chain, key), key, inChain, "private key"},
		{"half a key in the chain", join(chain, key[:100]), key, inChain, "damaged PEM block of a private key"},
		{"a certificate request in place of a chain", block("CERTIFICATE REQUEST", der.Bytes), key, inChain, "a CA must sign"},
		{"a damaged END line", join(chain, damaged), key, inChain, "damaged PEM block"},
		{"a damaged block before others", damaged, key, inChain, "damaged PEM block"},
		{"a missing BEGIN line", join(chain, headless), key, inChain, "BEGIN line is missing"},
		{"base64 without BEGIN and END lines", join(chain, []byte(strings.Split(string(chain), "\n")[1]+"\n")), key, inChain, "base64"},
		{"binary data after the chain", join(chain, []byte{0, 1, 2}), key, inChain, "binary"},
		{"a block that is not a certificate", block("CERTIFICATE", []byte("garbage")), key, inChain, "cannot be parsed"},
		{"half a certificate", block("CERTIFICATE", der.Bytes[:100]), key, inChain, "cannot be parsed"},
		{"too long a chain", slices.Repeat(chain, 17), key, inChain, "more than 16"},
		{"too long a text", join(chain, slices.Repeat([]byte("#\n"), 3<<20)), key, inChain, "at most"},
		{"an empty key", chain, nil, inKey, "is empty"},
		{"garbage in place of a key", chain, []byte("garbage"), inKey, "no private key in PEM"},
		{"a certificate in place of a key", chain, chain, inKey, "holds a certificate"},
		{"a public key", chain, block("PUBLIC KEY", []byte("x")), inKey, "public key"},
		{"another kind of block", chain, block("DH PARAMETERS", []byte("x")), inKey, "not a private key"},
		{"a key with legacy encryption", chain, oldEncrypted, "passphrase", "is missing"},
		{"a certificate in DER in place of a key", chain, der.Bytes, inKey, "holds a certificate"},
		{"two keys", chain, join(key, other.KeyPEM), inKey, "more than one"},
		{"half a key", chain, block("PRIVATE KEY", keyDER.Bytes[:20]), inKey, "cannot be parsed"},
		{"a key for key exchange only", chain, block("PRIVATE KEY", x25519), inKey, "want ECDSA, RSA or Ed25519"},
		{"an SSH key", chain, block("OPENSSH PRIVATE KEY", keyDER.Bytes), inKey, "want ECDSA, RSA or Ed25519"},
		{"the key of another certificate", chain, other.KeyPEM, inKey, "is not the key of"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := certs.ParseCertificate(c.chain, c.key)
			f := wantFault(t, err, c.field)
			if !strings.Contains(f.Problem, c.say) {
				t.Errorf("problem %q does not say %q", f.Problem, c.say)
			}
			checkText(t, err.Error())
			if text := strings.Split(string(key), "\n")[1]; strings.Contains(err.Error(), text) {
				t.Error("the error holds the key")
			}
		})
	}

	t.Run("both faults at once", func(t *testing.T) {
		_, err := certs.ParseCertificate(nil, nil)
		wantFault(t, err, inChain)
		wantFault(t, err, inKey)
	})
}

func TestParseCertificateAcceptsKeysOfEveryForm(t *testing.T) {
	ca := certstest.NewCA(t)
	ec := certstest.TLS(t, ca.Server(t, "a.test")).PrivateKey.(*ecdsa.PrivateKey)
	sec1, err := x509.MarshalECPrivateKey(ec)
	if err != nil {
		t.Fatal(err)
	}
	ecCert := certFor(t, ec.Public())
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	rsaCert := certFor(t, rsaKey.Public())
	for name, c := range map[string]struct{ chain, key []byte }{
		"SEC1":                   {ecCert, block("EC PRIVATE KEY", sec1)},
		"SEC1 after parameters":  {ecCert, join(block("EC PARAMETERS", []byte{6, 0}), block("EC PRIVATE KEY", sec1))},
		"PKCS#1":                 {rsaCert, block("RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(rsaKey))},
		"text around the blocks": {join([]byte("subject=CN = a.test\n\n"), ecCert, []byte("# the end\n")), join([]byte("Key:\n"), block("EC PRIVATE KEY", sec1))},
		"CRLF line ends":         {[]byte(strings.ReplaceAll(string(ecCert), "\n", "\r\n")), block("EC PRIVATE KEY", sec1)},
	} {
		if _, err := certs.ParseCertificate(c.chain, c.key); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// certFor makes a certificate for an existing key.
func certFor(t *testing.T, public any) []byte {
	t.Helper()
	signer, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(7), DNSNames: []string{"a.test"}, NotAfter: time.Now().Add(time.Hour)}
	parent := &x509.Certificate{Subject: pkix.Name{CommonName: "p"}, PublicKey: signer.Public()}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, public, signer)
	if err != nil {
		t.Fatal(err)
	}
	return block("CERTIFICATE", der)
}

func TestChainIsSorted(t *testing.T) {
	root := certstest.NewCA(t)
	one := root.Intermediate(t)
	two := one.Intermediate(t)
	issued := two.Server(t, "a.test")
	leafPEM := block("CERTIFICATE", issued.Leaf.Raw)
	l, i1, i2, r := leafPEM, one.CertPEM(), two.CertPEM(), root.CertPEM()
	stranger := certstest.NewCA(t).CertPEM()
	for _, c := range []struct {
		name   string
		chain  []byte
		length int
		warn   string
	}{
		{"in order", join(l, i2, i1), 3, ""},
		{"with its root", join(l, i2, i1, r), 4, ""},
		{"intermediates in reverse order", join(l, i1, i2), 3, "not in order"},
		{"root first", join(r, i1, i2, l), 4, "not in order"},
		{"leaf twice", join(l, l, i2, i1), 3, "\"CN=a.test\" twice"},
		{"an unrelated certificate", join(l, stranger, i2, i1), 3, "does not belong"},
		{"a missing intermediate", join(l, i1), 1, "does not belong"},
		{"only the leaf", l, 1, "test intermediate of TestChainIsSorted\" is missing"},
	} {
		t.Run(c.name, func(t *testing.T) {
			parsed, err := certs.ParseCertificate(c.chain, issued.KeyPEM)
			if err != nil {
				t.Fatal(err)
			}
			info := parsed.Info()
			if info.ChainLength != c.length {
				t.Errorf("chain of %d, want %d", info.ChainLength, c.length)
			}
			if got := strings.Join(info.Warnings, "; "); (c.warn == "") != (got == "") || !strings.Contains(got, c.warn) {
				t.Errorf("warnings %q, want %q", got, c.warn)
			}
			if !parsed.Leaf().Equal(issued.Leaf) {
				t.Error("another leaf")
			}
			if c.length < 3 {
				return
			}
			// The server sends the sorted chain.
			s := serve(t, newServer(t, certs.ServerOptions{Certificates: []*certs.Certificate{parsed}}).Conn)
			state, _, err := reach(t, s, &tls.Config{ServerName: "a.test", RootCAs: root.Pool()})
			if err != nil {
				t.Fatal(err)
			}
			if len(state.PeerCertificates) != c.length || !state.PeerCertificates[1].Equal(two.Certificate()) {
				t.Errorf("%d certificates were sent", len(state.PeerCertificates))
			}
		})
	}
}

func TestInfo(t *testing.T) {
	ca := certstest.NewCA(t)
	from := time.Date(2020, 1, 2, 3, 4, 5, 0, time.UTC)
	issued := ca.Leaf(t, pki.LeafOptions{
		CommonName: "a.test", Usage: pki.Both, DNSNames: []string{"a.test", "*.b.test"}, URIs: []string{"spiffe://c.test/x"},
		NotBefore: from, NotAfter: time.Now().Add(400 * 24 * time.Hour),
	})
	c := certstest.Certificate(t, issued)
	info := c.Info()
	life := fmt.Sprint(int(info.NotAfter.Sub(info.NotBefore) / (24 * time.Hour)))
	for _, f := range []struct{ name, got, want string }{
		{"subject", info.Subject, "CN=a.test"},
		{"names", strings.Join(info.SANs, " "), "DNS:a.test DNS:*.b.test URI:spiffe://c.test/x"},
		{"issuer", info.Issuer, "CN=test root of TestInfo"},
		{"serial", info.Serial, fmt.Sprintf("%x", issued.Leaf.SerialNumber)},
		{"fingerprint", info.SHA256Fingerprint, c.Fingerprint()},
		{"start", info.NotBefore.Format(time.RFC3339), "2020-01-02T03:04:05Z"},
		{"key", info.KeyType, "ECDSA P-256"},
		{"usages", strings.Join(info.KeyUsages, " "), "digitalSignature serverAuth clientAuth"},
		{"warnings", strings.Join(info.Warnings, " "), "it is valid for " + life + " days, longer than the 398 that public CAs issue and browsers accept"},
	} {
		if f.got != f.want {
			t.Errorf("%s: %q, want %q", f.name, f.got, f.want)
		}
	}
	if len(info.SHA256Fingerprint) != 64 || info.ChainLength != 1 {
		t.Errorf("fingerprint %q, chain of %d", info.SHA256Fingerprint, info.ChainLength)
	}
	for host, want := range map[string]bool{"a.test": true, "A.test": true, "x.b.test": true, "x.y.b.test": false, "b.test": false, "127.0.0.1": false} {
		if c.Matches(host) != want {
			t.Errorf("matches %s is %v", host, !want)
		}
	}
	if got := certs.Describe(nil); got.Subject != "" || got.ChainLength != 0 {
		t.Errorf("an empty chain is described as %+v", got)
	}
}

func TestInfoWarns(t *testing.T) {
	day := 24 * time.Hour
	now := time.Now()
	weak, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name   string
		change func(*x509.Certificate)
		want   []string
	}{
		{"an ordinary certificate", func(*x509.Certificate) {}, nil},
		{"near expiry", func(c *x509.Certificate) { c.NotAfter = now.Add(5*day + time.Hour) }, []string{"expires on", "in 5 days"}},
		{"expired", func(c *x509.Certificate) { c.NotAfter = now.Add(-day) }, []string{"it expired on"}},
		{"not valid yet", func(c *x509.Certificate) { c.NotBefore = now.Add(day) }, []string{"not valid before"}},
		{"no name", func(c *x509.Certificate) { c.DNSNames = nil }, []string{"no subject alternative name"}},
		{"a client without a name", func(c *x509.Certificate) {
			c.DNSNames, c.ExtKeyUsage = nil, []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
		}, nil},
		{"weak key", func(c *x509.Certificate) { c.PublicKey = weak.Public() }, []string{"RSA of 1024 bits"}},
		{"SHA-1", func(c *x509.Certificate) {
			c.SignatureAlgorithm, c.RawIssuer = x509.SHA1WithRSA, []byte("another")
		}, []string{"SHA1-RSA"}},
		{"a CA", func(c *x509.Certificate) { c.IsCA, c.DNSNames = true, nil }, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			x := *selfSigned(t, func(x *x509.Certificate) { x.NotAfter = now.Add(365 * day) }).Leaf
			c.change(&x)
			got := strings.Join(certs.Describe([]*x509.Certificate{&x}).Warnings, "; ")
			if (len(c.want) == 0) != (got == "") {
				t.Errorf("warnings %q", got)
			}
			for _, w := range c.want {
				if !strings.Contains(got, w) {
					t.Errorf("warnings %q do not say %q", got, w)
				}
			}
		})
	}
	t.Run("an intermediate", func(t *testing.T) {
		root := certstest.NewCA(t)
		mid := intermediate(t, root, now.Add(-2*day), now.Add(-day))
		info := certstest.Certificate(t, mid.Leaf(t, pki.LeafOptions{DNSNames: []string{"a.test"}, NotAfter: now.Add(day)})).Info()
		if got := strings.Join(info.Warnings, "; "); !strings.Contains(got, "its intermediate") {
			t.Errorf("warnings %q", got)
		}
	})
	t.Run("a CA as a leaf", func(t *testing.T) {
		cert := selfSigned(t, func(c *x509.Certificate) { c.BasicConstraintsValid, c.IsCA = true, true })
		parsed, err := certs.ParseCertificate(block("CERTIFICATE", cert.Certificate[0]), pkcs8PEM(t, cert.PrivateKey))
		if err != nil {
			t.Fatal(err)
		}
		if got := strings.Join(parsed.Info().Warnings, "; "); !strings.Contains(got, "a CA certificate") {
			t.Errorf("warnings %q", got)
		}
	})
}

func TestInfoIsBoundedAndEscaped(t *testing.T) {
	hostile := strings.Repeat("\x1b]0;x\a\n", 2000)
	cert := selfSigned(t, func(c *x509.Certificate) {
		c.Subject = pkix.Name{CommonName: hostile, Organization: []string{"a\nb", "\u202e"}}
		for i := range 8000 {
			c.DNSNames = append(c.DNSNames, fmt.Sprintf("host-%d.test", i))
		}
		c.URIs = []*url.URL{{Scheme: "x", Opaque: "y"}}
	})
	info := certs.Describe([]*x509.Certificate{cert.Leaf})
	if len(info.SANs) != 100 {
		t.Errorf("%d names", len(info.SANs))
	}
	checkText(t, info.Subject)
	checkText(t, info.Issuer)
	checkText(t, strings.Join(info.Warnings, ""))
	for _, n := range info.SANs {
		checkText(t, n)
	}
	if got := strings.Join(info.Warnings, "; "); !strings.Contains(got, "8002 names, of which 100 are listed") {
		t.Errorf("warnings %q", got)
	}
}
