package certs_test

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/drawbridge-gateway/drawbridge/certs"
	"github.com/drawbridge-gateway/drawbridge/certs/certstest"
	"github.com/drawbridge-gateway/drawbridge/certs/pki"
)

func TestParseSANs(t *testing.T) {
	for in, want := range map[string]string{
		"DNS:a.example":           "DNS:a.example",
		"dns:A.Example.":          "DNS:a.example",
		"a.example":               "DNS:a.example",
		"*.a.example":             "DNS:*.a.example",
		"DNS:under_score.example": "DNS:under_score.example",
		"localhost":               "DNS:localhost",
		"IP:10.0.0.1":             "IP:10.0.0.1",
		"10.0.0.1":                "IP:10.0.0.1",
		"IP:2001:DB8::0:1":        "IP:2001:db8::1",
		"::1":                     "IP:::1",
		"::ffff:10.0.0.1":         "IP:10.0.0.1",
		"URI:spiffe://corp/Pay":   "URI:spiffe://corp/Pay",
		"spiffe://corp/pay":       "URI:spiffe://corp/pay",
		"urn:uuid:1":              "URI:urn:uuid:1",
		"https://u@corp/x":        "URI:https://u@corp/x",
		"email:Ops@Corp.example":  "email:Ops@corp.example",
		"ops@corp.example":        "email:ops@corp.example",
	} {
		sans, err := certs.ParseSANs([]string{in})
		if err != nil || len(sans) != 1 || sans[0].String() != want {
			t.Errorf("%q: %v, %v, want %s", in, sans, err, want)
		}
	}
	if sans, err := certs.ParseSANs(nil); sans != nil || err != nil {
		t.Errorf("nothing: %v, %v", sans, err)
	}
}

func TestParseSANsRefuses(t *testing.T) {
	bad := []string{
		"", "DNS:", "IP:", "URI:", "email:", "IP:a.example", "IP:10.0.0.0/8", "IP:fe80::1%eth0", "DNS:a..example", "DNS:a.*.example", "DNS:-\x00",
		"DNS:*", "DNS:zürich.example", "URI:no-scheme", "URI:%zz://", "email:ops", "email:@corp.example", "email:ops@", "email:a\nb@corp.example",
		"a.example\n", "a b", strings.Repeat("x", 64) + ".example", "DNS:" + strings.Repeat("x.", 130) + "example",
	}
	for _, in := range bad {
		sans, err := certs.ParseSANs([]string{"DNS:good.example", in})
		if sans != nil {
			t.Errorf("%q: %v", in, sans)
		}
		checkText(t, wantFault(t, err, "[1]").Problem)
	}
	_, err := certs.ParseSANs(bad)
	for i := range bad {
		wantFault(t, err, fmt.Sprintf("[%d]", i))
	}
	_, err = certs.ParseSANs(slices.Repeat([]string{"a.example"}, 101))
	wantFault(t, err, "")
}

// manyNames is a certificate with a name of each kind.
func manyNames(t *testing.T) *tls.Config {
	return &tls.Config{Certificates: []tls.Certificate{selfSigned(t, func(c *x509.Certificate) {
		c.DNSNames = []string{"upstream.test", "*.wild.test"}
		c.IPAddresses = []net.IP{net.IPv4(10, 0, 0, 1), net.ParseIP("2001:db8::1")}
		c.URIs = []*url.URL{{Scheme: "spiffe", Host: "corp", Path: "/pay"}}
		c.EmailAddresses = []string{"Ops@Corp.test"}
	})}}
}

func TestSubjectAltNames(t *testing.T) {
	config := manyNames(t)
	trust := []*certs.TrustBundle{parseTrust(t, block("CERTIFICATE", config.Certificates[0].Certificate[0]))}
	for _, c := range []struct {
		name  string
		names []string
		want  certs.Reason
	}{
		{"a DNS name", []string{"DNS:upstream.test"}, ""},
		{"one of several names", []string{"DNS:x.test", "URI:spiffe://corp/pay"}, ""},
		{"an address", []string{"IP:10.0.0.1"}, ""},
		{"an IPv6 address", []string{"IP:2001:DB8:0::1"}, ""},
		{"a URI", []string{"spiffe://corp/pay"}, ""},
		{"an email address", []string{"email:Ops@corp.TEST"}, ""},
		{"the wildcard name itself", []string{"DNS:*.wild.test"}, ""},
		{"a name that a wildcard covers", []string{"DNS:a.wild.test"}, certs.ReasonNameMismatch},
		{"another DNS name", []string{"DNS:x.test"}, certs.ReasonNameMismatch},
		{"the beginning of a URI", []string{"URI:spiffe://corp/pa"}, certs.ReasonNameMismatch},
		{"a URI in another case", []string{"URI:spiffe://corp/Pay"}, certs.ReasonNameMismatch},
		{"an email address in another case", []string{"email:ops@corp.test"}, certs.ReasonNameMismatch},
		{"an address as a DNS name", []string{"DNS:10.0.0.1"}, certs.ReasonNameMismatch},
		{"a DNS name as a URI", []string{"URI:dns:upstream.test"}, certs.ReasonNameMismatch},
	} {
		t.Run(c.name, func(t *testing.T) {
			bothVersions(t, func(t *testing.T, version uint16) {
				sans, err := certs.ParseSANs(c.names)
				if err != nil {
					t.Fatal(err)
				}
				s := serveConfig(t, config)
				// ServerName and VerifyName have no effect.
				client := newClient(t, certs.ClientOptions{
					ServerName: "front.test", VerifyName: "other.test", SubjectAltNames: sans, Trust: trust, MaxVersion: version,
				})
				for i := range 2 {
					state, err := connect(t, client, s.addr)
					if c.want == "" && (err != nil || state.DidResume != (i > 0)) {
						t.Fatalf("connection %d: resumed %v, error %v", i, state.DidResume, err)
					}
					if c.want != "" {
						wantReason(t, err, c.want)
						if !strings.Contains(err.Error(), "not for "+sans[0].String()) {
							t.Errorf("error %q", err)
						}
					}
				}
			})
		})
	}
}

// A client needs no other name to verify than the alternative names.
func TestSubjectAltNamesNeedNoOtherName(t *testing.T) {
	config := manyNames(t)
	sans, err := certs.ParseSANs([]string{"spiffe://corp/pay"})
	if err != nil {
		t.Fatal(err)
	}
	s := serveConfig(t, config)
	trust := parseTrust(t, block("CERTIFICATE", config.Certificates[0].Certificate[0]))
	if _, err := connect(t, newClient(t, certs.ClientOptions{SubjectAltNames: sans, Trust: []*certs.TrustBundle{trust}}), s.addr); err != nil {
		t.Error(err)
	}
}

// A listener checks the names of its clients, on resumption too.
func TestClientSubjectAltNames(t *testing.T) {
	ca := certstest.NewCA(t)
	issue := func(uri string) *certs.Certificate {
		return certstest.Certificate(t, ca.Leaf(t, pki.LeafOptions{Usage: pki.Client, CommonName: "c", URIs: []string{uri}}))
	}
	sans, err := certs.ParseSANs([]string{"spiffe://corp/web", "spiffe://corp/app"})
	if err != nil {
		t.Fatal(err)
	}
	bothVersions(t, func(t *testing.T, version uint16) {
		o := certs.ServerOptions{
			Certificates: []*certs.Certificate{certstest.Certificate(t, ca.Server(t, "front.test"))},
			ClientAuth:   certs.ClientAuthOptional, ClientTrust: []*certs.TrustBundle{ca.Trust(t)}, ClientSubjectAltNames: sans, MaxVersion: version,
		}
		s := serve(t, newServer(t, o).Conn)
		for _, c := range []struct {
			cert *certs.Certificate
			want certs.Reason
		}{
			{issue("spiffe://corp/app"), ""},
			{issue("spiffe://corp/db"), certs.ReasonNameMismatch},
			{nil, ""}, // the certificate is optional
		} {
			client := newClient(t, certs.ClientOptions{ServerName: "front.test", Trust: []*certs.TrustBundle{ca.Trust(t)}, Certificate: c.cert})
			for i := range 2 {
				_, err := connect(t, client, s.addr)
				at := <-s.handshakes
				if got := certs.ClassifyAccept(at.err); got != c.want {
					t.Errorf("connection %d: reason %q, want %q", i, got, c.want)
				}
				if c.want == "" && (err != nil || at.state.DidResume != (i > 0)) {
					t.Errorf("connection %d: resumed %v, error %v", i, at.state.DidResume, err)
				}
			}
		}
	})
	_, err = certs.NewServer(certs.ServerOptions{
		Certificates: []*certs.Certificate{certstest.Certificate(t, ca.Server(t, "front.test"))}, ClientSubjectAltNames: sans,
	})
	wantFault(t, err, "client_subject_alt_names")
}

func FuzzParseSANs(f *testing.F) {
	for _, s := range []string{"DNS:a", "IP:::1", "URI:a://b", "email:a@b", "a@b:c", "%", "::", "DNS:*.a", "urn:\x00"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, name string) {
		sans, err := certs.ParseSANs([]string{name})
		checkFaults(t, err)
		if err != nil {
			wantFault(t, err, "[0]")
			return
		}
		// Parsing the output of String yields the same name.
		again, err := certs.ParseSANs([]string{sans[0].String()})
		if err != nil || again[0] != sans[0] {
			t.Errorf("%q is %v, and then %v, %v", name, sans[0], again, err)
		}
	})
}
