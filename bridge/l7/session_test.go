package l7

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/drawbridge-gateway/drawbridge/bridge/l7/backs"
	"github.com/drawbridge-gateway/drawbridge/bridge/l7/policy"
	"github.com/drawbridge-gateway/drawbridge/certs"
	"github.com/drawbridge-gateway/drawbridge/certs/certstest"
	"github.com/drawbridge-gateway/drawbridge/certs/pki"
)

// askingTLS returns the TLS of a listener that requests client certificates but
// also accepts clients without one.
func (w *testbed) askingTLS() *certs.Servers {
	s, err := certs.NewServer(certs.ServerOptions{
		Certificates: []*certs.Certificate{certstest.Certificate(w, w.ca.Server(w, "localhost", "127.0.0.1"))},
		NextProtos:   []string{"h2", "http/1.1"},
		ClientAuth:   certs.ClientAuthOptional,
		ClientTrust:  []*certs.TrustBundle{w.ca.Trust(w)},
	})
	if err != nil {
		w.Fatal(err)
	}
	return certs.NewServers(s)
}

// clientWith returns a client that speaks one version of HTTP and resumes
// sessions. Its certificate may be nil.
func (w *testbed) clientWith(issued *pki.Issued, h2 bool) *http.Client {
	config := &tls.Config{RootCAs: w.ca.Pool(), ServerName: "localhost", ClientSessionCache: tls.NewLRUClientSessionCache(8)}
	if issued != nil {
		config.Certificates = []tls.Certificate{certstest.TLS(w, issued)}
	}
	t := &http.Transport{TLSClientConfig: config, ForceAttemptHTTP2: h2, DisableCompression: true}
	w.Cleanup(t.CloseIdleConnections)
	return &http.Client{Transport: t}
}

// forged holds fields that a client may forge.
var forged = http.Header{
	"X-Client-Cert-Subject": {"CN=admin"}, "X_client_cert_subject": {"CN=admin"}, "X-Client_cert-San": {"DNS:admin"}, "X-Client-Cert-Serial": {"1"},
	"X-Client-Cert-Fingerprint": {"00"}, "X-Client-Cert": {"admin"}, "Client-Cert": {":AAAA:"}, "Client_cert": {":AAAA:"}, "Client-Cert-Chain": {":AAAA:"},
	"X-Forwarded-Client-Cert": {"Subject=admin"},
}

func TestUpstreamsReceiveTheClientsCertificate(t *testing.T) {
	w := newTestbed(t)
	back := w.back(backs.Auto, w.server(seen, "h2", "http/1.1"))
	issued := w.ca.Leaf(w, pki.LeafOptions{Usage: pki.Client, CommonName: "gateway, of \"Example\"\r\nX-Admin: 1", DNSNames: []string{"a.example"}, URIs: []string{"spiffe://example/a,b"}})
	other := w.ca.Client(w, "other")
	identity := func(c *x509.Certificate) []string {
		id, sum := certs.Identify(c), sha256.Sum256(c.Raw)
		lines := []string{"X-Client-Cert-Fingerprint: " + hex.EncodeToString(sum[:]), "X-Client-Cert-Serial: " + fmt.Sprintf("%x", c.SerialNumber), "X-Client-Cert-Subject: " + id.Subject}
		if id.SubjectAltNames != "" {
			lines = slices.Insert(lines, 1, "X-Client-Cert-San: "+id.SubjectAltNames)
		}
		return lines
	}
	if got := certs.Identify(issued.Leaf); got.Subject != `CN=gateway\, of \"Example\"\0D\0AX-Admin: 1` || got.SubjectAltNames != `DNS:a.example,URI:spiffe://example/a\2Cb` {
		t.Fatalf("%+v", got)
	}
	for _, c := range []struct {
		kind   policy.ClientCertificateFields
		issued *pki.Issued
		want   []string
	}{
		{policy.SendNoCertificate, issued, nil},
		{policy.SendIdentity, issued, identity(issued.Leaf)},
		{policy.SendIdentity, other, identity(other.Leaf)},
		{policy.SendIdentity, nil, nil},
		{policy.SendCertificate, issued, []string{"Client-Cert: :" + base64.StdEncoding.EncodeToString(issued.Leaf.Raw) + ":"}},
		{policy.SendCertificate, nil, nil},
	} {
		table := &Table{TLS: w.askingTLS(), ClientCertificate: c.kind, Default: to(back)}
		s, address := w.gateway(fixed(table))
		for _, h2 := range []bool{false, true} {
			client := w.clientWith(c.issued, h2)
			for i := range 4 { // two requests on one connection, and two on a resumed one
				if i == 2 {
					client.CloseIdleConnections()
				}
				r, _ := http.NewRequest("GET", "https://"+address+"/", nil)
				r.Header = forged.Clone()
				res, err := client.Do(r)
				if err != nil {
					t.Fatal(err)
				}
				body, _ := io.ReadAll(res.Body)
				res.Body.Close()
				var got []string
				for line := range strings.Lines(string(body)) {
					if name := strings.ToLower(line); strings.Contains(name, "cert") {
						got = append(got, strings.TrimSpace(line))
					}
				}
				if !slices.Equal(got, c.want) {
					t.Errorf("kind %d, HTTP/2 %v: %q, want %q", c.kind, h2, got, c.want)
				}
			}
		}
		if st := s.Stats(); st.HandshakesResumed == 0 {
			t.Errorf("no session was resumed: %+v", st)
		}
	}
}

func TestVariablesOfAConnection(t *testing.T) {
	w := newTestbed(t)
	rules := policy.HeaderRules{Set: values("X-All: ${tls_version} ${tls_cipher_suite} ${sni} ${scheme} ${client_certificate_subject} ${client_certificate_fingerprint}")}
	table := &Table{TLS: w.askingTLS(), Default: &Action{Respond: &Respond{}, ResponseHeaders: rules}}
	_, address := w.gateway(fixed(table))
	issued := w.ca.Client(w, "gateway")
	sum := sha256.Sum256(issued.Leaf.Raw)
	for _, c := range []struct {
		sni    string
		max    uint16
		issued *pki.Issued
		want   string
	}{
		{"LocalHost", tls.VersionTLS13, issued, "TLSv1.3 SUITE localhost https CN=gateway " + hex.EncodeToString(sum[:])},
		{"a_b.example", tls.VersionTLS13, nil, "TLSv1.3 SUITE a_b.example https"},
		{"", tls.VersionTLS12, nil, "TLSv1.2 SUITE  https"},
		{"no name\r\nX: y", tls.VersionTLS13, nil, "TLSv1.3 SUITE  https"},
	} {
		config := &tls.Config{InsecureSkipVerify: true, ServerName: c.sni, MaxVersion: c.max, NextProtos: []string{"http/1.1"}}
		if c.issued != nil {
			config.Certificates = []tls.Certificate{certstest.TLS(w, c.issued)}
		}
		raw, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		conn := tls.Client(raw, config)
		defer conn.Close()
		fmt.Fprint(conn, "GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
		got, err := io.ReadAll(conn)
		if err != nil {
			t.Fatal(err)
		}
		want := strings.Replace(c.want, "SUITE", tls.CipherSuiteName(conn.ConnectionState().CipherSuite), 1)
		if !strings.Contains(string(got), "\r\nX-All: "+want+"\r\n") {
			t.Errorf("%q: %q", c.sni, got)
		}
	}
}
