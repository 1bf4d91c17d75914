package certs

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"testing"

	"github.com/drawbridge-gateway/drawbridge/certs/pki"
)

// crypto/tls verifies clients first. If it accepts an invalid one, as it once
// did on resumption (CVE-2025-68121), our own check still rejects the client.
func TestServerVerifiesIndependentlyOfCryptoTLS(t *testing.T) {
	issue := func(usage pki.Usage) (*pki.CA, *pki.Issued) {
		ca, err := pki.NewRoot(pki.CAOptions{})
		if err != nil {
			t.Fatal(err)
		}
		issued, err := ca.Issue(pki.LeafOptions{Usage: usage, CommonName: "c", DNSNames: []string{"c.test"}})
		if err != nil {
			t.Fatal(err)
		}
		return ca, issued
	}
	ca, client := issue(pki.Client)
	_, stranger := issue(pki.Client)
	wrong, err := ca.Issue(pki.LeafOptions{Usage: pki.Server, DNSNames: []string{"c.test"}})
	if err != nil {
		t.Fatal(err)
	}
	trust, err := ParseTrustBundle(ca.RootPEM())
	if err != nil {
		t.Fatal(err)
	}
	cert, err := ParseCertificate(wrong.ChainPEM, wrong.KeyPEM)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name string
		auth ClientAuth
		peer *pki.Issued
		want Reason
	}{
		{"a valid client", ClientAuthRequired, client, ""},
		{"a client of another CA", ClientAuthRequired, stranger, ReasonUnknownCA},
		{"an unknown CA, optional", ClientAuthOptional, stranger, ReasonUnknownCA},
		{"a server's certificate", ClientAuthRequired, wrong, ReasonWrongKeyUsage},
		{"no certificate", ClientAuthRequired, nil, ReasonClientCertificateRequired},
		{"no certificate, optional", ClientAuthOptional, nil, ""},
		{"an unknown CA, no certificate requested", ClientAuthNone, stranger, ""},
	} {
		o := ServerOptions{Certificates: []*Certificate{cert}, ClientAuth: c.auth}
		if c.auth != ClientAuthNone {
			o.ClientTrust = []*TrustBundle{trust}
		}
		s, err := NewServer(o)
		if err != nil {
			t.Fatal(err)
		}
		for _, resumed := range []bool{false, true} {
			state := tls.ConnectionState{DidResume: resumed}
			if c.peer != nil {
				state.PeerCertificates = []*x509.Certificate{c.peer.Leaf}
			}
			if got := ClassifyAccept(s.accept(state)); got != c.want {
				t.Errorf("%s, resumed %v: reason %q, want %q", c.name, resumed, got, c.want)
			}
		}
	}
}

// A listener may present 10,000 certificates, and a write of one of them makes a new
// Server.
func TestTicketIdentitiesHashNoCertificate(t *testing.T) {
	o := ServerOptions{Owner: "edge", Certificates: []*Certificate{{fingerprint: "aa"}, {fingerprint: "bb"}}} // without a leaf
	sum := sha256.Sum256([]byte(`"edge" false 0 false 0 0 [] [] [] aa bb`))
	if got, want := o.ticketIdentity(), hex.EncodeToString(sum[:]); got != want {
		t.Errorf("%s, want %s, which other versions of the program use", got, want)
	}
}
