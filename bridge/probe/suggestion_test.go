package probe_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"math/big"
	"net"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/drawbridge-gateway/drawbridge/certs"
	"github.com/drawbridge-gateway/drawbridge/certs/certstest"
)

// pinnedServer returns a server's certificate with the changes of change, and a
// bundle that trusts it.
func pinnedServer(t *testing.T, change func(*x509.Certificate)) (tls.Certificate, *certs.TrustBundle) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "backend"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	change(template)
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	b, err := certs.ParseTrustBundle(der)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}, b
}

// Following a suggestion about names makes the handshake succeed; if no
// setting can, the suggestion contains no setting.
func TestFollowedNameSuggestionsSucceed(t *testing.T) {
	spiffe, err := url.Parse("spiffe://corp.test/pay")
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name   string
		change func(*x509.Certificate)
		helps  bool // a setting can make the handshake succeed
	}{
		{"a DNS name", func(c *x509.Certificate) { c.DNSNames = []string{"backend.test"} }, true},
		{"a wildcard and a name", func(c *x509.Certificate) { c.DNSNames = []string{"*.other.test", "backend.test"} }, true},
		{"an address", func(c *x509.Certificate) { c.IPAddresses = []net.IP{net.IPv4(192, 0, 2, 1)} }, true},
		{"a URI", func(c *x509.Certificate) { c.URIs = []*url.URL{spiffe} }, true},
		{"an address as DNS name", func(c *x509.Certificate) { c.DNSNames = []string{"192.0.2.1"} }, false},
		{"an address as DNS name, and a name", func(c *x509.Certificate) { c.DNSNames = []string{"192.0.2.1", "backend.test"} }, true},
		{"a trailing dot", func(c *x509.Certificate) { c.DNSNames = []string{"backend.test."} }, false},
		{"a partial wildcard", func(c *x509.Certificate) { c.DNSNames = []string{"back*.test"} }, false},
		{"a bare wildcard", func(c *x509.Certificate) { c.DNSNames = []string{"*"} }, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			server, trust := pinnedServer(t, tt.change)
			addr := serveTLS(t, &tls.Config{Certificates: []tls.Certificate{server}})
			o := certs.ClientOptions{Trust: []*certs.TrustBundle{trust}, ServerName: "wanted.test"}
			r := run(t, addr, o)
			if r.Reason != certs.ReasonNameMismatch {
				t.Fatalf("the reason is %s, want %s", r.Reason, certs.ReasonNameMismatch)
			}
			s := r.Suggestion
			if s.Value == "" {
				if tt.helps {
					t.Errorf("the suggestion %+v has no value", s)
				}
				if strings.HasPrefix(s.Text, "set ") {
					t.Errorf("the suggestion %+v cannot be followed", s)
				}
				return
			}
			switch s.Field {
			case "tls.verify_name":
				o.VerifyName = s.Value
			case "tls.server_name":
				o.ServerName = s.Value
			case "tls.subject_alt_names":
				var names []string
				if err := json.Unmarshal([]byte(s.Value), &names); err != nil {
					t.Fatal(err)
				}
				if o.SubjectAltNames, err = certs.ParseSANs(names); err != nil {
					t.Fatal(err)
				}
			default:
				t.Fatalf("suggestion %+v", s)
			}
			if again := run(t, addr, o); !again.OK() {
				t.Errorf("with %+v followed it is still %s: %s", s, again.Reason, again.Explanation)
			}
		})
	}
}

// A server may name more CAs than the result shows, and the gateway's CA may be
// among the others.
func TestAllAcceptableCAsAreChecked(t *testing.T) {
	ca := certstest.NewCA(t)
	server, client := mutual(t, ca)
	pool := x509.NewCertPool()
	for i := range 150 {
		other, _ := pinnedServer(t, func(c *x509.Certificate) {
			c.Subject.CommonName, c.IsCA, c.BasicConstraintsValid = "other CA "+strconv.Itoa(i), true, true
		})
		pool.AddCert(other.Leaf)
	}
	pool.AddCert(ca.Root().Certificate())
	server.ClientCAs, server.ClientAuth = pool, tls.RequestClientCert
	r := run(t, serveTLS(t, server), client)
	if !r.OK() || strings.Contains(r.Explanation, "a CA that the server does not name") {
		t.Errorf("our certificate is from the last CA that the server named: %s", r.Explanation)
	}
}
