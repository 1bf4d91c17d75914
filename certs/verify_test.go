package certs_test

import (
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/drawbridge-gateway/drawbridge/certs"
	"github.com/drawbridge-gateway/drawbridge/certs/certstest"
	"github.com/drawbridge-gateway/drawbridge/certs/pki"
)

func TestDepthCountsIntermediates(t *testing.T) {
	root := certstest.NewCA(t)
	one := root.Intermediate(t)
	two := one.Intermediate(t)
	for intermediates, ca := range []*certstest.CA{root, one, two} {
		s := serveConfig(t, &tls.Config{Certificates: []tls.Certificate{certstest.TLS(t, ca.Server(t, "upstream.test"))}})
		for depth := range uint32(4) {
			c := newClient(t, certs.ClientOptions{
				ServerName: "upstream.test", Trust: []*certs.TrustBundle{root.Trust(t)}, VerifyDepth: &depth,
			})
			_, err := connect(t, c, s.addr)
			if int(depth) >= intermediates {
				if err != nil {
					t.Errorf("%d intermediates, depth %d: %v", intermediates, depth, err)
				}
				continue
			}
			wantReason(t, err, certs.ReasonDepthExceeded)
		}
	}
}

// The intermediate is signed by the root and is also an anchor itself. So there
// is a chain with an intermediate and one without, and only the short one is
// within the depth.
func TestTheShortestChainDeterminesTheDepth(t *testing.T) {
	root := certstest.NewCA(t)
	below := root.Intermediate(t)
	s := serveConfig(t, &tls.Config{Certificates: []tls.Certificate{certstest.TLS(t, below.Server(t, "upstream.test"))}})
	depth := uint32(0)
	both := parseTrust(t, append(root.CertPEM(), below.CertPEM()...))
	c := newClient(t, certs.ClientOptions{ServerName: "upstream.test", Trust: []*certs.TrustBundle{both}, VerifyDepth: &depth})
	if _, err := connect(t, c, s.addr); err != nil {
		t.Error(err)
	}
}

func TestAnyCertificateOfABundleIsAnAnchor(t *testing.T) {
	root := certstest.NewCA(t)
	below := root.Intermediate(t)
	self := selfSigned(t, func(*x509.Certificate) {})
	selfPEM := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: self.Certificate[0]})
	depth := uint32(0)
	for _, c := range []struct {
		name   string
		server tls.Certificate
		trust  []byte
		want   certs.Reason
	}{
		{"an intermediate without its root", certstest.TLS(t, below.Server(t, "upstream.test")), below.CertPEM(), ""},
		{"a self-signed server certificate", self, selfPEM, ""},
		{"an unknown self-signed certificate", selfSigned(t, func(*x509.Certificate) {}), selfPEM, certs.ReasonUnknownCA},
		{"a self-signed certificate in a bundle of CAs", self, append(root.CertPEM(), selfPEM...), ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := serveConfig(t, &tls.Config{Certificates: []tls.Certificate{c.server}})
			client := newClient(t, certs.ClientOptions{
				ServerName: "upstream.test", Trust: []*certs.TrustBundle{parseTrust(t, c.trust)}, VerifyDepth: &depth,
			})
			_, err := connect(t, client, s.addr)
			if c.want == "" && err != nil {
				t.Fatal(err)
			}
			if c.want != "" {
				wantReason(t, err, c.want)
			}
		})
	}
}

func TestSeveralBundlesAreCombined(t *testing.T) {
	a, b := certstest.NewCA(t), certstest.NewCA(t)
	s := serveConfig(t, &tls.Config{Certificates: []tls.Certificate{certstest.TLS(t, b.Server(t, "upstream.test"))}})
	c := newClient(t, certs.ClientOptions{ServerName: "upstream.test", Trust: []*certs.TrustBundle{a.Trust(t), b.Trust(t)}})
	if _, err := connect(t, c, s.addr); err != nil {
		t.Error(err)
	}
}

// The SNI, the verified name and an address are independent.
func TestNames(t *testing.T) {
	ca := certstest.NewCA(t)
	for _, c := range []struct {
		name, sni, verify string
		cert              []string
		want              certs.Reason
		sent              string // the SNI that the server received
	}{
		{"the server name is verified", "upstream.test", "", []string{"upstream.test"}, "", "upstream.test"},
		{"another name is verified", "front.test", "upstream.test", []string{"upstream.test"}, "", "front.test"},
		{"the sent name is not verified", "front.test", "upstream.test", []string{"front.test"}, certs.ReasonNameMismatch, "front.test"},
		{"a name without SNI", "", "upstream.test", []string{"upstream.test"}, "", ""},
		{"a wrong name without SNI", "", "upstream.test", []string{"other.test"}, certs.ReasonNameMismatch, ""},
		{"an address is verified and not sent", "127.0.0.1", "", []string{"127.0.0.1"}, "", ""},
		{"an IPv6 address", "::1", "", []string{"::1"}, "", ""},
		{"an address does not match a DNS name", "127.0.0.1", "", []string{"localhost"}, certs.ReasonNameMismatch, ""},
		{"a wildcard", "a.upstream.test", "", []string{"*.upstream.test"}, "", "a.upstream.test"},
		{"a wildcard is for one label", "a.b.upstream.test", "", []string{"*.upstream.test"}, certs.ReasonNameMismatch, "a.b.upstream.test"},
		{"case is ignored", "UPSTREAM.test", "", []string{"upstream.test"}, "", "UPSTREAM.test"},
		{"a trailing dot is ignored", "upstream.test.", "", []string{"upstream.test"}, "", "upstream.test"},
	} {
		t.Run(c.name, func(t *testing.T) {
			bothVersions(t, func(t *testing.T, version uint16) {
				sni := make(chan string, 1)
				cert := certstest.TLS(t, ca.Server(t, c.cert...))
				s := serveConfig(t, &tls.Config{MaxVersion: version, GetCertificate: func(h *tls.ClientHelloInfo) (*tls.Certificate, error) {
					sni <- h.ServerName
					return &cert, nil
				}})
				client := newClient(t, certs.ClientOptions{ServerName: c.sni, VerifyName: c.verify, Trust: []*certs.TrustBundle{ca.Trust(t)}})
				_, err := connect(t, client, s.addr)
				if got := <-sni; got != c.sent {
					t.Errorf("sent SNI %q, want %q", got, c.sent)
				}
				if c.want == "" && err != nil {
					t.Fatal(err)
				}
				if c.want != "" {
					wantReason(t, err, c.want)
				}
			})
		})
	}
}

func TestReportOnlyReportsEachFailureAndContinues(t *testing.T) {
	ca := certstest.NewCA(t)
	s := serveConfig(t, &tls.Config{Certificates: []tls.Certificate{certstest.TLS(t, ca.Server(t, "other.test"))}})
	var reported []certs.Reason
	c := newClient(t, certs.ClientOptions{
		ServerName: "upstream.test", Trust: []*certs.TrustBundle{certstest.NewCA(t).Trust(t)},
		Verification: certs.VerifyReportOnly,
		Report:       func(e *certs.VerifyError) { reported = append(reported, e.Reason) },
	})
	for range 2 { // a full handshake and a resumed one
		reported = nil
		if _, err := connect(t, c, s.addr); err != nil {
			t.Fatal(err)
		}
		if fmt.Sprint(reported) != "[UNKNOWN_CA NAME_MISMATCH]" {
			t.Errorf("reported %v", reported)
		}
	}
}

func TestInsecureSkipChecksNothing(t *testing.T) {
	s := serveConfig(t, &tls.Config{Certificates: []tls.Certificate{selfSigned(t, func(*x509.Certificate) {})}})
	c := newClient(t, certs.ClientOptions{Verification: certs.VerifyInsecureSkip})
	if _, err := connect(t, c, s.addr); err != nil {
		t.Error(err)
	}
}

// A certificate with 8,000 names and a subject of control characters must
// neither fill the log nor control a terminal.
func TestHostileCertificatesAreBoundedInErrors(t *testing.T) {
	hostile := strings.Repeat("\x1b[31m\nroot: all is well\r\n", 500)
	var names []string
	for i := range 8000 {
		names = append(names, fmt.Sprintf("host-%d.attacker.test", i))
	}
	for _, c := range []struct {
		name   string
		change func(*x509.Certificate)
		trust  bool
		want   certs.Reason
	}{
		{"many names", func(c *x509.Certificate) { c.DNSNames = names }, true, certs.ReasonNameMismatch},
		{"a hostile subject", func(c *x509.Certificate) { c.Subject = pkix.Name{CommonName: hostile} }, false, certs.ReasonUnknownCA},
		{"a subject of 2,000 parts", func(c *x509.Certificate) {
			c.Subject = pkix.Name{OrganizationalUnit: slices.Repeat([]string{"unit of the attacker"}, 2000)}
		}, false, certs.ReasonUnknownCA},
		{"a long address", func(c *x509.Certificate) {
			c.DNSNames, c.EmailAddresses = nil, []string{strings.Repeat("a", 10000) + "@attacker.test"}
		}, true, certs.ReasonNameMismatch},
	} {
		t.Run(c.name, func(t *testing.T) {
			server := selfSigned(t, c.change)
			trust := certstest.NewCA(t).Trust(t)
			if c.trust {
				trust = parseTrust(t, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate[0]}))
			}
			s := serveConfig(t, &tls.Config{Certificates: []tls.Certificate{server}})
			client := newClient(t, certs.ClientOptions{ServerName: "upstream.test", Trust: []*certs.TrustBundle{trust}})
			_, err := connect(t, client, s.addr)
			wantReason(t, err, c.want)
			checkText(t, err.Error())
		})
	}
}

// checkText fails the test if a text is long or contains control characters.
func checkText(t *testing.T, text string) {
	t.Helper()
	if len(text) > 1500 {
		t.Errorf("%d bytes of text: %.200q…", len(text), text)
	}
	if strings.ContainsFunc(text, func(r rune) bool { return r < ' ' || r == 0x7f }) {
		t.Errorf("control characters in %.200q", text)
	}
	if strings.Contains(text, "PRIVATE KEY") {
		t.Errorf("%.200q looks like a key, so logs and answers would omit it", text)
	}
}

func TestNewClientRefuses(t *testing.T) {
	ca := certstest.NewCA(t)
	trust := []*certs.TrustBundle{ca.Trust(t)}
	for _, c := range []struct {
		name, field string
		o           certs.ClientOptions
	}{
		{"no name", "verify_name", certs.ClientOptions{Trust: trust}},
		{"report only without a name", "verify_name", certs.ClientOptions{Trust: trust, Verification: certs.VerifyReportOnly}},
		{"a bundle that is missing", "trust_bundles[1]", certs.ClientOptions{ServerName: "a", Trust: []*certs.TrustBundle{trust[0], nil}}},
		{"a bundle that is empty", "trust_bundles[0]", certs.ClientOptions{ServerName: "a", Trust: []*certs.TrustBundle{{}}}},
		{"min above max", "min_version", certs.ClientOptions{ServerName: "a", Trust: trust, MinVersion: tls.VersionTLS13, MaxVersion: tls.VersionTLS12}},
		{"SSLv3", "min_version", certs.ClientOptions{ServerName: "a", Trust: trust, MinVersion: 0x300}},
		{"no such version", "max_version", certs.ClientOptions{ServerName: "a", Trust: trust, MaxVersion: 0x305}},
		{"an empty protocol", "alpn[1]", certs.ClientOptions{ServerName: "a", Trust: trust, NextProtos: []string{"h2", ""}}},
		{"a long protocol", "alpn[0]", certs.ClientOptions{ServerName: "a", Trust: trust, NextProtos: []string{strings.Repeat("x", 256)}}},
		{"no such verification", "verification", certs.ClientOptions{ServerName: "a", Trust: trust, Verification: 7}},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := certs.NewClient(c.o)
			wantFault(t, err, c.field)
		})
	}
}

// If only min or only max is set, the default of the other does not conflict.
func TestOneVersionBound(t *testing.T) {
	ca := certstest.NewCA(t)
	s := serveConfig(t, &tls.Config{MinVersion: tls.VersionTLS10, Certificates: []tls.Certificate{certstest.TLS(t, ca.Server(t, "upstream.test"))}})
	for _, c := range []struct{ min, max, want uint16 }{
		{0, 0, tls.VersionTLS13},
		{tls.VersionTLS13, 0, tls.VersionTLS13},
		{tls.VersionTLS10, 0, tls.VersionTLS13},
		{0, tls.VersionTLS12, tls.VersionTLS12},
		{0, tls.VersionTLS11, tls.VersionTLS11},
		{tls.VersionTLS10, tls.VersionTLS10, tls.VersionTLS10},
	} {
		client := newClient(t, certs.ClientOptions{ServerName: "upstream.test", Trust: []*certs.TrustBundle{ca.Trust(t)}, MinVersion: c.min, MaxVersion: c.max})
		state, err := connect(t, client, s.addr)
		if err != nil {
			t.Errorf("min %x max %x: %v", c.min, c.max, err)
		} else if state.Version != c.want {
			t.Errorf("min %x max %x: %s", c.min, c.max, tls.VersionName(state.Version))
		}
	}
}

// Every key type of pki works on both sides of a handshake.
func TestKeyTypes(t *testing.T) {
	ca := certstest.NewCA(t)
	for _, key := range []pki.KeyType{pki.ECDSAP256, pki.ECDSAP384, pki.RSA2048, pki.Ed25519} {
		t.Run(key.String(), func(t *testing.T) {
			bothVersions(t, func(t *testing.T, version uint16) {
				server, o := mutual(t, ca)
				server.Certificates[0] = leaf(t, ca, pki.LeafOptions{DNSNames: []string{"upstream.test"}, IPs: []net.IP{net.IPv4(127, 0, 0, 1)}, Key: key})
				o.Certificate = certstest.Certificate(t, ca.Leaf(t, pki.LeafOptions{Usage: pki.Client, CommonName: "c", Key: key}))
				o.MaxVersion = version
				if _, err := connect(t, newClient(t, o), serveConfig(t, server).addr); err != nil {
					t.Error(err)
				}
			})
		})
	}
}

func parseTrust(t testing.TB, text []byte) *certs.TrustBundle {
	t.Helper()
	b, err := certs.ParseTrustBundle(text)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// The error names the missing issuer, not the issuer of the leaf.
func TestUnknownCANamesTheMissingIssuer(t *testing.T) {
	root := certstest.NewCA(t)
	s := serveConfig(t, &tls.Config{Certificates: []tls.Certificate{certstest.TLS(t, root.Intermediate(t).Server(t, "upstream.test"))}})
	c := newClient(t, certs.ClientOptions{ServerName: "upstream.test", Trust: []*certs.TrustBundle{certstest.NewCA(t).Trust(t)}})
	_, err := connect(t, c, s.addr)
	wantReason(t, err, certs.ReasonUnknownCA)
	if want := `names "` + root.Certificate().Subject.String() + `" as its issuer`; !strings.Contains(err.Error(), want) {
		t.Errorf("error %q does not say %q", err, want)
	}
}

// While a CA renews its intermediate, servers send the old and the new one. Any
// valid chain is accepted.
func TestAnExpiredCertificateBesideAGoodChain(t *testing.T) {
	root := certstest.NewCA(t)
	now := time.Now()
	old := intermediate(t, root, now.Add(-2*time.Hour), now.Add(-time.Hour))
	server := certstest.TLS(t, root.Intermediate(t).Server(t, "upstream.test"))
	server.Certificate = [][]byte{server.Certificate[0], old.Certificate().Raw, server.Certificate[1]}
	s := serveConfig(t, &tls.Config{Certificates: []tls.Certificate{server}})
	c := newClient(t, certs.ClientOptions{ServerName: "upstream.test", Trust: []*certs.TrustBundle{root.Trust(t)}})
	if _, err := connect(t, c, s.addr); err != nil {
		t.Error(err)
	}
}

// An error names a leaf without a subject by its DNS names.
func TestALeafWithoutASubject(t *testing.T) {
	server := selfSigned(t, func(c *x509.Certificate) { c.Subject = pkix.Name{} })
	s := serveConfig(t, &tls.Config{Certificates: []tls.Certificate{server}})
	c := newClient(t, certs.ClientOptions{ServerName: "upstream.test", Trust: []*certs.TrustBundle{certstest.NewCA(t).Trust(t)}})
	_, err := connect(t, c, s.addr)
	wantReason(t, err, certs.ReasonUnknownCA)
	if !strings.Contains(err.Error(), `"DNS:upstream.test"`) {
		t.Errorf("error %q", err)
	}
}

// A server that presents hundreds of certificates with one name cannot make
// x509 work for long.
func TestManyIntermediatesOfOneName(t *testing.T) {
	root, stranger := certstest.NewCA(t), certstest.NewCA(t)
	server := certstest.TLS(t, root.Intermediate(t).Server(t, "upstream.test"))
	for range 150 {
		server.Certificate = append(server.Certificate, stranger.Intermediate(t).Certificate().Raw)
	}
	s := serveConfig(t, &tls.Config{Certificates: []tls.Certificate{server}})
	c := newClient(t, certs.ClientOptions{ServerName: "upstream.test", Trust: []*certs.TrustBundle{certstest.NewCA(t).Trust(t)}})
	_, err := connect(t, c, s.addr)
	if err == nil {
		t.Fatal("it was trusted")
	}
	if r := certs.Classify(err); r != certs.ReasonUnknownCA && r != certs.ReasonBadCertificate {
		t.Errorf("reason %s", r)
	}
	checkText(t, err.Error())
}
