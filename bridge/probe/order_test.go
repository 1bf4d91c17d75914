package probe_test

import (
	"crypto/tls"
	"slices"
	"testing"

	"github.com/drawbridge-gateway/drawbridge/certs"
	"github.com/drawbridge-gateway/drawbridge/certs/certstest"
)

// If a server presents its chain in reverse, the probe explains the order. It does not
// report a name mismatch of the first certificate.
func TestAReversedChain(t *testing.T) {
	ca := certstest.NewCA(t)
	_, o := mutual(t, ca)
	chain := certstest.TLS(t, ca.Intermediate(t).Server(t, "upstream.test"))
	chain.Leaf = nil
	slices.Reverse(chain.Certificate)
	sans, err := certs.ParseSANs([]string{"DNS:upstream.test"})
	if err != nil {
		t.Fatal(err)
	}
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		for _, names := range [][]certs.SAN{nil, sans} {
			o.SubjectAltNames = names
			addr := serveTLS(t, &tls.Config{Certificates: []tls.Certificate{chain}, MaxVersion: version})
			want(t, run(t, addr, o), certs.ReasonNameMismatch,
				[]string{`"CN=test intermediate of`, "is a CA", `certificate 2, "CN=upstream.test", is for`, "wrong order"},
				[]string{`have the upstream send its own certificate "CN=upstream.test" first`})
		}
	}
	// The chain begins with a CA, and no certificate after it has the name.
	o.VerifyName, o.SubjectAltNames = "other.test", nil
	r := run(t, serveTLS(t, &tls.Config{Certificates: []tls.Certificate{chain}}), o)
	want(t, r, certs.ReasonNameMismatch, []string{"other.test"}, []string{"issued again"})
}
