package probe_test

import (
	"strings"
	"testing"

	"github.com/drawbridge-gateway/drawbridge/bridge/probe"
	"github.com/drawbridge-gateway/drawbridge/certs"
	"github.com/drawbridge-gateway/drawbridge/certs/certstest"
	"github.com/drawbridge-gateway/drawbridge/certs/pki"
)

// If a server accepts only RSA keys and our certificate has an ECDSA key, the
// probe says so and names a stored certificate that would fit. The suggested
// certificate makes the handshake succeed.
func TestAClientKeyThatTheServerDoesNotAccept(t *testing.T) {
	ca, other := certstest.NewCA(t), rootNamed(t, "another root")
	server := ca.Server(t, "upstream.test")
	issue := func(ca *certstest.CA, name string, key pki.KeyType, usage pki.Usage) probe.Certificate {
		return probe.Certificate{Name: name, Cert: certstest.Certificate(t, ca.Leaf(t, pki.LeafOptions{Usage: usage, CommonName: name, DNSNames: []string{"c.test"}, Key: key}))}
	}
	fits := issue(ca, "rsa-client", pki.RSA2048, pki.Client)
	stored := []probe.Certificate{
		issue(ca, "ecdsa-client", pki.ECDSAP256, pki.Client), issue(other, "rsa-of-another", pki.RSA2048, pki.Client),
		issue(ca, "rsa-server", pki.RSA2048, pki.Server), fits,
	}
	for _, version := range []string{"-tls1_2", "-tls1_3"} {
		t.Run(version, func(t *testing.T) {
			addr := sServer(t, server, version, "-Verify", "1", "-verify_return_error", "-CAfile", caFile(t, ca), "-client_sigalgs", "RSA-PSS+SHA256:RSA+SHA256")
			_, o := mutual(t, ca)
			with := func(target *probe.Target) { target.Certificates = stored }
			r := run(t, addr, o, with)
			want(t, r, certs.ReasonLocalConfig, []string{`"CN=bridge"`, "RSA keys", "ours has a key of the type ECDSA P-256", "none was sent"}, []string{`set tls.certificate to "rsa-client"`})
			if r.Suggestion.Value != "rsa-client" || strings.Contains(r.Suggestion.Text, "rsa-of-another") || strings.Contains(r.Suggestion.Text, "rsa-server") {
				t.Errorf("suggestion %+v", r.Suggestion)
			}
			want(t, run(t, addr, o), certs.ReasonLocalConfig, nil, []string{"with a key of the type RSA", "CN=test root of"})
			o.Certificate = fits.Cert
			want(t, run(t, addr, o, with), "", nil, nil)
		})
	}
}

// A stored certificate of a CA that the server names is suggested by name.
func TestAStoredCertificateIsSuggested(t *testing.T) {
	ca, other := certstest.NewCA(t), rootNamed(t, "another root")
	stored := []probe.Certificate{
		{Name: "stranger", Cert: certstest.Certificate(t, other.Client(t, "stranger"))},
		{Name: "ours", Cert: certstest.Certificate(t, ca.Client(t, "ours"))},
	}
	with := func(target *probe.Target) { target.Certificates = stored }
	server, o := mutual(t, ca)
	addr := serveTLS(t, server)
	for _, c := range []struct {
		cert *certs.Certificate
		want certs.Reason
	}{{nil, certs.ReasonClientCertificateRequired}, {stored[0].Cert, certs.ReasonClientCertificateRejected}} {
		o.Certificate = c.cert
		want(t, run(t, addr, o, with), c.want, nil, []string{`set tls.certificate to "ours"`})
	}
	o.Certificate = stored[1].Cert
	want(t, run(t, addr, o, with), "", nil, nil)
}
