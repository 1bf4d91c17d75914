package certs_test

import (
	"crypto/ecdsa"
	"crypto/tls"
	"crypto/x509"
	"math/big"
	"testing"
	"time"

	"github.com/drawbridge-gateway/drawbridge/certs"
	"github.com/drawbridge-gateway/drawbridge/certs/certstest"
)

// AllowMissingClientAuthUsage also accepts certificates for serverAuth. All other
// certificates are still rejected.
func TestCertificatesWithoutClientAuthUsage(t *testing.T) {
	ca, other, gate := newSigner(t, func(*x509.Certificate) {}), newSigner(t, func(*x509.Certificate) {}), certstest.NewCA(t)
	bundle, err := certs.NewTrustBundle(certs.TrustSource{Field: "pem", Certificates: ca.pem(), CRLs: []certs.CRLSource{{Field: "crl", Data: ca.crl(t, func(l *x509.RevocationList) {
		l.RevokedCertificateEntries = []x509.RevocationListEntry{{SerialNumber: big.NewInt(66), RevocationTime: time.Now().Add(-time.Minute)}}
	})}}})
	if err != nil {
		t.Fatal(err)
	}
	presented := []*certs.Certificate{certstest.Certificate(t, gate.Server(t, "gate.test"))}
	server := func(allow bool, auth certs.ClientAuth) *certs.Server {
		return newServer(t, certs.ServerOptions{
			Certificates: presented, ClientAuth: auth, ClientTrust: []*certs.TrustBundle{bundle},
			ClientSubjectAltNames: []certs.SAN{{Kind: certs.SANDNS, Value: "upstream.test"}}, AllowMissingClientAuthUsage: allow,
		})
	}
	leaf := func(ca *signer, change func(*x509.Certificate), usages ...x509.ExtKeyUsage) *tls.Certificate {
		pair := leafOf(t, ca.cert, ca.key, func(c *x509.Certificate) {
			c.ExtKeyUsage = usages
			change(c)
		})
		return &pair
	}
	same := func(*x509.Certificate) {}
	const serverAuth, clientAuth = x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth
	below := newSigner(t, same)
	below.cert = reissueBelow(t, ca, below, clientAuth)
	overClients := leaf(below, same, serverAuth)
	overClients.Certificate = append(overClients.Certificate, below.cert.Raw)
	cases := []struct {
		name                string
		pair                *tls.Certificate
		normally, permitted certs.Reason
	}{
		{"clientAuth", leaf(ca, same, clientAuth), "", ""},
		{"clientAuth and serverAuth", leaf(ca, same, clientAuth, serverAuth), "", ""},
		{"serverAuth", leaf(ca, same, serverAuth), certs.ReasonWrongKeyUsage, ""},
		{"serverAuth and emailProtection", leaf(ca, same, serverAuth, x509.ExtKeyUsageEmailProtection), certs.ReasonWrongKeyUsage, ""},
		{"codeSigning", leaf(ca, same, x509.ExtKeyUsageCodeSigning), certs.ReasonWrongKeyUsage, certs.ReasonWrongKeyUsage},
		{"serverAuth below a CA for clientAuth", overClients, certs.ReasonWrongKeyUsage, certs.ReasonWrongKeyUsage},
		{"a certificate of another CA", leaf(other, same, serverAuth), certs.ReasonUnknownCA, certs.ReasonUnknownCA},
		{"a certificate for another name", leaf(ca, func(c *x509.Certificate) { c.DNSNames = []string{"other.test"} }, serverAuth), certs.ReasonWrongKeyUsage, certs.ReasonNameMismatch},
		{"revoked", leaf(ca, func(c *x509.Certificate) { c.SerialNumber = big.NewInt(66) }, serverAuth), certs.ReasonWrongKeyUsage, certs.ReasonRevoked},
		{"expired", leaf(ca, func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) }, serverAuth), certs.ReasonExpired, certs.ReasonExpired},
		{"none", nil, certs.ReasonClientCertificateRequired, certs.ReasonClientCertificateRequired},
	}
	bothVersions(t, func(t *testing.T, version uint16) {
		for _, allow := range []bool{false, true} {
			for _, auth := range []certs.ClientAuth{certs.ClientAuthRequired, certs.ClientAuthOptional} {
				s := serve(t, server(allow, auth).Conn)
				for _, c := range cases {
					want := c.normally
					if allow {
						want = c.permitted
					}
					if auth == certs.ClientAuthOptional && c.pair == nil {
						want = ""
					}
					config := &tls.Config{ServerName: "gate.test", RootCAs: gate.Pool(), MaxVersion: version, ClientSessionCache: tls.NewLRUClientSessionCache(1)}
					if c.pair != nil { // crypto/tls would not send the certificate to a server that names other CAs
						config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return c.pair, nil }
					}
					for i := range 2 { // the second connection resumes
						state, at, err := reach(t, s, config)
						if got := certs.ClassifyAccept(at.err); got != want || (err == nil) != (want == "") {
							t.Errorf("%s, allowed %v, auth %d, connection %d: reason %q, want %q: %v, %v", c.name, allow, auth, i, got, want, at.err, err)
							break
						}
						if want == "" && state.DidResume != (i > 0) {
							t.Errorf("%s, allowed %v: connection %d resumed: %v", c.name, allow, i, state.DidResume)
						}
					}
				}
			}
		}
	})
	_, err = certs.NewServer(certs.ServerOptions{Certificates: presented, AllowMissingClientAuthUsage: true})
	wantFault(t, err, "allow_missing_client_auth_usage")
}

// reissueBelow turns below into an intermediate of ca that is restricted to a
// usage.
func reissueBelow(t *testing.T, ca, below *signer, usage x509.ExtKeyUsage) *x509.Certificate {
	t.Helper()
	pair := leafOf(t, ca.cert, ca.key, func(c *x509.Certificate) {
		c.DNSNames, c.IsCA, c.BasicConstraintsValid, c.KeyUsage, c.ExtKeyUsage = nil, true, true, x509.KeyUsageCertSign|x509.KeyUsageCRLSign, []x509.ExtKeyUsage{usage}
		c.SubjectKeyId = []byte{2}
	})
	cert, err := x509.ParseCertificate(pair.Certificate[0])
	if err != nil {
		t.Fatal(err)
	}
	below.key = pair.PrivateKey.(*ecdsa.PrivateKey)
	return cert
}
