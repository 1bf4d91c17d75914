package probe_test

import (
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"math/big"
	"testing"
	"time"

	"github.com/drawbridge-gateway/drawbridge/bridge/probe"
	"github.com/drawbridge-gateway/drawbridge/certs"
	"github.com/drawbridge-gateway/drawbridge/certs/certstest"
	"github.com/drawbridge-gateway/drawbridge/certs/pki"
)

// Each case is a real handshake between compatible ends with one change.
func TestAFailedHandshakeIsExplained(t *testing.T) {
	ca, other := certstest.NewCA(t), rootNamed(t, "another root")
	between := ca.Intermediate(t)
	hour, day := time.Hour, 24*time.Hour
	now := time.Now()
	names := []string{"upstream.test"}
	leaf := func(from *certstest.CA, o pki.LeafOptions) tls.Certificate { return certstest.TLS(t, from.Leaf(t, o)) }

	type peers struct {
		server *tls.Config
		client *certs.ClientOptions
		target *probe.Target
	}
	cases := []struct {
		name          string
		change        func(t *testing.T, p peers)
		reason        certs.Reason
		facts, advice []string
		only          uint16 // the only TLS version to test; 0: both
	}{
		{
			name: "nothing changed", change: func(*testing.T, peers) {},
			facts: []string{"completed the handshake", "upstream.test"},
		},
		{
			name:   "a CA that is not trusted",
			change: func(t *testing.T, p peers) { p.client.Trust = []*certs.TrustBundle{other.Trust(t)} },
			reason: certs.ReasonUnknownCA,
			facts:  []string{"CN=upstream.test", "CN=test root of TestAFailedHandshake"},
			advice: []string{"tls.trust_bundles", "CN=test root of"},
		},
		{
			name:   "a CA that has a new key",
			change: func(t *testing.T, p peers) { p.client.Trust = []*certs.TrustBundle{certstest.NewCA(t).Trust(t)} },
			reason: certs.ReasonUnknownCA,
			facts:  []string{"CN=test root of TestAFailedHandshake", "a CA of that name is trusted"},
			advice: []string{"new key", "tls.trust_bundles"},
		},
		{
			name: "a CA in another trust bundle",
			change: func(t *testing.T, p peers) {
				p.client.Trust = []*certs.TrustBundle{other.Trust(t)}
				p.target.Known = []probe.Bundle{{Name: "wrong", Trust: other.Trust(t)}, {Name: "corp", Trust: ca.Trust(t)}}
			},
			reason: certs.ReasonUnknownCA,
			facts:  []string{`the trust bundle "corp" trusts it`},
			advice: []string{`set tls.trust_bundles to ["corp"]`},
		},
		{
			name: "an intermediate that is not sent",
			change: func(t *testing.T, p peers) {
				cert := leaf(between, pki.LeafOptions{DNSNames: names})
				cert.Certificate = cert.Certificate[:1]
				p.server.Certificates[0] = cert
			},
			reason: certs.ReasonUnknownCA,
			facts:  []string{"one certificate", "CN=upstream.test", "CN=test intermediate of TestAFailedHan"},
			advice: []string{"have the upstream send", "CN=test intermediate of"},
		},
		{
			name: "a root that is sent and not trusted",
			change: func(t *testing.T, p peers) {
				cert := leaf(other, pki.LeafOptions{DNSNames: names})
				cert.Certificate = append(cert.Certificate, other.Root().Certificate().Raw)
				p.server.Certificates[0] = cert
			},
			reason: certs.ReasonUnknownCA,
			facts:  []string{"leads to the root", "CN=another root"},
			advice: []string{"tls.trust_bundles"},
		},
		{
			name: "expired long ago",
			change: func(t *testing.T, p peers) {
				p.server.Certificates[0] = leaf(ca, pki.LeafOptions{DNSNames: names, NotBefore: now.Add(-9 * day), NotAfter: now.Add(-3*day - hour)})
			},
			reason: certs.ReasonExpired,
			facts:  []string{"CN=upstream.test", "3 days ago", now.Add(-3*day - hour).UTC().Format("2006-01-02"), "this machine's clock"},
			advice: []string{"renew the certificate"},
		},
		{
			name: "expired long before the clock, and so is our trust anchor",
			change: func(t *testing.T, p peers) {
				p.client.Time = func() time.Time { return now.Add(40 * 365 * day) }
			},
			reason: certs.ReasonExpired,
			facts:  []string{"CN=upstream.test", "days ago", "clock may be fast"},
			advice: []string{"this machine's clock"},
		},
		{
			name: "expired just now",
			change: func(t *testing.T, p peers) {
				p.server.Certificates[0] = leaf(ca, pki.LeafOptions{DNSNames: names, NotBefore: now.Add(-2 * hour), NotAfter: now.Add(-hour - time.Minute)})
			},
			reason: certs.ReasonExpired,
			facts:  []string{"61 minutes ago", "clock may be fast"},
			advice: []string{"this machine's clock"},
		},
		{
			name: "an expired intermediate",
			change: func(t *testing.T, p peers) {
				below, err := ca.NewIntermediate(pki.CAOptions{CommonName: "old intermediate", NotBefore: now.Add(-9 * day), NotAfter: now.Add(-4 * day)})
				if err != nil {
					t.Fatal(err)
				}
				p.server.Certificates[0] = leaf(&certstest.CA{CA: below}, pki.LeafOptions{DNSNames: names, NotAfter: now.Add(hour)})
			},
			reason: certs.ReasonExpired,
			facts:  []string{"CN=old intermediate", "4 days ago"},
			advice: []string{"intermediate", "CN=old intermediate"},
		},
		{
			name: "not valid yet, for an hour",
			change: func(t *testing.T, p peers) {
				p.server.Certificates[0] = leaf(ca, pki.LeafOptions{DNSNames: names, NotBefore: now.Add(3*hour + time.Minute), NotAfter: now.Add(day)})
			},
			reason: certs.ReasonNotYetValid,
			facts:  []string{"not valid before", "in 3 hours", "clock may be slow"},
			advice: []string{"this machine's clock"},
		},
		{
			name: "not valid yet, for days",
			change: func(t *testing.T, p peers) {
				p.server.Certificates[0] = leaf(ca, pki.LeafOptions{DNSNames: names, NotBefore: now.Add(4*day + hour), NotAfter: now.Add(9 * day)})
			},
			reason: certs.ReasonNotYetValid,
			facts:  []string{"in 4 days"},
			advice: []string{"valid now"},
		},
		{
			name: "not valid yet, and neither is our trust anchor",
			change: func(t *testing.T, p peers) {
				p.client.Time = func() time.Time { return now.Add(-400 * day) }
			},
			reason: certs.ReasonNotYetValid,
			facts:  []string{"399 days", "clock may be slow"},
			advice: []string{"this machine's clock"},
		},
		{
			name: "another name",
			change: func(t *testing.T, p peers) {
				p.server.Certificates[0] = leaf(ca, pki.LeafOptions{DNSNames: []string{"a.example", "b.example"}})
			},
			reason: certs.ReasonNameMismatch,
			facts:  []string{"the certificate is for a.example, b.example; we verify upstream.test"},
			advice: []string{`set tls.verify_name to "a.example"`},
		},
		{
			name: "another name, where an address is verified",
			change: func(t *testing.T, p peers) {
				p.client.ServerName = "127.0.0.1"
			},
			reason: certs.ReasonNameMismatch,
			facts:  []string{"is for upstream.test; we verify 127.0.0.1"},
			advice: []string{`set tls.server_name to "upstream.test"`},
		},
		{
			name: "a SPIFFE ID only",
			change: func(t *testing.T, p peers) {
				p.server.Certificates[0] = leaf(ca, pki.LeafOptions{CommonName: "pay", URIs: []string{"spiffe://corp/pay"}})
			},
			reason: certs.ReasonNameMismatch,
			facts:  []string{"URI:spiffe://corp/pay", "upstream.test"},
			advice: []string{`set tls.subject_alt_names to ["URI:spiffe://corp/pay"]`},
		},
		{
			name: "a wildcard only",
			change: func(t *testing.T, p peers) {
				p.server.Certificates[0] = leaf(ca, pki.LeafOptions{DNSNames: []string{"*.example.com"}})
			},
			reason: certs.ReasonNameMismatch,
			facts:  []string{"is for *.example.com"},
			advice: []string{"tls.verify_name", "*.example.com"},
		},
		{
			name: "a certificate without any of the required names",
			change: func(t *testing.T, p peers) {
				p.client.SubjectAltNames = []certs.SAN{{Kind: certs.SANURI, Value: "spiffe://corp/pay"}}
			},
			reason: certs.ReasonNameMismatch,
			facts:  []string{"upstream.test", "URI:spiffe://corp/pay"},
			advice: []string{`set tls.subject_alt_names to ["DNS:upstream.test"]`},
		},
		{
			name: "too deep",
			change: func(t *testing.T, p peers) {
				p.server.Certificates[0] = leaf(between, pki.LeafOptions{DNSNames: names})
				p.client.VerifyDepth = new(uint32)
			},
			reason: certs.ReasonDepthExceeded,
			facts:  []string{"1 intermediate", "allows 0"},
			advice: []string{"set tls.verify_depth to 1"},
		},
		{
			name: "a certificate for clients",
			change: func(t *testing.T, p peers) {
				p.server.Certificates[0] = leaf(ca, pki.LeafOptions{Usage: pki.Client, DNSNames: names})
			},
			reason: certs.ReasonWrongKeyUsage,
			facts:  []string{"CN=upstream.test", "clientAuth"},
			advice: []string{"serverAuth"},
		},
		{
			name:   "a key that is not pinned",
			change: func(_ *testing.T, p peers) { p.client.Pins = [][32]byte{{1, 2, 3}} },
			reason: certs.ReasonPinMismatch,
			facts:  []string{"CN=upstream.test"},
			advice: []string{"tls.spki_pins"},
		},
		{
			name: "a revoked certificate",
			change: func(t *testing.T, p peers) {
				issued := ca.Leaf(t, pki.LeafOptions{DNSNames: names})
				p.server.Certificates[0] = certstest.TLS(t, issued)
				p.client.Trust = []*certs.TrustBundle{withCRL(t, ca, pki.CRLOptions{Revoked: []*big.Int{issued.Leaf.SerialNumber}})}
			},
			reason: certs.ReasonRevoked,
			facts:  []string{"CN=upstream.test", "revoked"},
			advice: []string{"without revoked certificates"},
		},
		{
			name: "a revocation list that is out of date",
			change: func(t *testing.T, p peers) {
				p.client.Trust = []*certs.TrustBundle{withCRL(t, ca, pki.CRLOptions{ThisUpdate: now.Add(-2 * day), NextUpdate: now.Add(-day)})}
			},
			reason: certs.ReasonCRLExpired,
			facts:  []string{"revocation list", "CN=test root of", now.Add(-day).UTC().Format("2006-01-02")},
			advice: []string{"crls", "tls.trust_bundles"},
		},
		{
			name: "an intermediate whose revocation list is missing",
			change: func(t *testing.T, p peers) {
				p.server.Certificates[0] = leaf(between, pki.LeafOptions{DNSNames: names})
				p.client.Trust = []*certs.TrustBundle{withCRL(t, ca, pki.CRLOptions{})}
			},
			reason: certs.ReasonCRLExpired,
			facts:  []string{"CN=test intermediate of"},
			advice: []string{"crls"},
		},
		{
			name: "an unknown critical extension",
			change: func(t *testing.T, p peers) {
				p.server.Certificates[0] = selfSigned(t, &x509.Certificate{
					Subject: pkix.Name{CommonName: "odd"}, DNSNames: names,
					ExtraExtensions: []pkix.Extension{{Id: asn1.ObjectIdentifier{1, 2, 3, 4}, Critical: true, Value: []byte{5, 0}}},
				})
			},
			reason: certs.ReasonBadCertificate,
			facts:  []string{"CN=odd", "extension"},
			advice: []string{"reissued without that extension"},
		},
		{
			name:   "no client certificate",
			change: func(_ *testing.T, p peers) { p.client.Certificate = nil },
			reason: certs.ReasonClientCertificateRequired,
			facts:  []string{"requires a client certificate", "CN=test root of TestAFailedHandshake"},
			advice: []string{"set tls.certificate", "CN=test root of"},
		},
		{
			name: "a client certificate of another CA",
			change: func(t *testing.T, p peers) {
				p.client.Certificate = certstest.Certificate(t, other.Client(t, "stranger"))
			},
			reason: certs.ReasonClientCertificateRejected,
			facts:  []string{"CN=stranger", "it accepts those of", "none of them issued ours"},
			advice: []string{"set tls.certificate", "CN=test root of"},
		},
		{
			name: "an expired client certificate",
			change: func(t *testing.T, p peers) {
				p.client.Certificate = certstest.Certificate(t, ca.Leaf(t, pki.LeafOptions{
					Usage: pki.Client, CommonName: "late", NotBefore: now.Add(-2 * day), NotAfter: now.Add(-day)}))
			},
			reason: certs.ReasonClientCertificateRejected,
			facts:  []string{"CN=late", "ours expired on"},
			advice: []string{"renew"},
		},
		{
			name: "a server's certificate as client certificate",
			change: func(t *testing.T, p peers) {
				p.client.Certificate = certstest.Certificate(t, ca.Server(t, "me.test"))
			},
			reason: certs.ReasonClientCertificateRejected,
			facts:  []string{"CN=me.test", "clientAuth"},
			advice: []string{"clientAuth"},
		},
		{
			name: "a client certificate that is not valid yet",
			change: func(t *testing.T, p peers) {
				p.client.Certificate = certstest.Certificate(t, ca.Leaf(t, pki.LeafOptions{
					Usage: pki.Client, CommonName: "early", NotBefore: now.Add(day), NotAfter: now.Add(2 * day)}))
			},
			reason: certs.ReasonClientCertificateRejected,
			facts:  []string{"CN=early", "ours is not valid before"},
			advice: []string{"valid"},
		},
		{
			name: "a client certificate that is refused without an alert",
			change: func(_ *testing.T, p peers) {
				p.server.ClientAuth, p.server.ClientCAs = tls.RequireAnyClientCert, nil
				p.server.VerifyPeerCertificate = func([][]byte, [][]*x509.Certificate) error { return errors.New("no") }
			},
			reason: certs.ReasonClientCertificateRejected,
			facts:  []string{"CN=bridge", "does not name its CAs"},
			advice: []string{"its log"},
		},
		{
			name: "a client certificate from an unnamed CA",
			change: func(_ *testing.T, p peers) {
				p.client.Certificate = nil
				p.server.ClientAuth, p.server.ClientCAs = tls.RequireAnyClientCert, nil
			},
			reason: certs.ReasonClientCertificateRequired,
			facts:  []string{"does not name its CAs"},
			advice: []string{"tls.certificate"},
		},
		{
			name: "only a common name",
			change: func(t *testing.T, p peers) {
				p.server.Certificates[0] = selfSigned(t, &x509.Certificate{Subject: pkix.Name{CommonName: "upstream.test"}})
				p.client.Trust = []*certs.TrustBundle{trust(t, p.server.Certificates[0].Certificate[0])}
			},
			reason: certs.ReasonNameMismatch,
			facts:  []string{"CN=upstream.test", "no subject alternative name", "RFC 9525"},
			advice: []string{"issued again with upstream.test"},
		},
		{
			name: "an issuer whose certificate is available elsewhere",
			change: func(t *testing.T, p peers) {
				p.server.Certificates[0] = issuedBy(t, "far intermediate", &x509.Certificate{
					Subject: pkix.Name{CommonName: "near leaf"}, DNSNames: names, IssuingCertificateURL: []string{"http://ca.example/far.crt"}})
			},
			reason: certs.ReasonUnknownCA,
			facts:  []string{"CN=far intermediate", "http://ca.example/far.crt"},
			advice: []string{"CN=far intermediate"},
		},
		{
			name: "a server that requires SNI",
			change: func(t *testing.T, p peers) {
				cert := p.server.Certificates[0]
				p.client.NoServerName = true
				p.server.Certificates = nil
				p.server.GetCertificate = func(h *tls.ClientHelloInfo) (*tls.Certificate, error) {
					if h.ServerName == "" {
						return nil, nil
					}
					return &cert, nil
				}
			},
			reason: certs.ReasonUnrecognizedName,
			facts:  []string{"we sent no SNI", "with tls.server_name: upstream.test the handshake succeeds"},
			advice: []string{"SERVER_NAME_SOURCE_FIXED", `tls.server_name to "upstream.test"`},
		},
		{
			name:   "a server that knows another name",
			change: func(t *testing.T, p peers) { knowsOnly(t, ca, p.server, "known.test") },
			reason: certs.ReasonUnrecognizedName,
			facts:  []string{"upstream.test", "SNI"},
			advice: []string{`set tls.server_name to "known.test"`},
		},
		{
			name:   "a server that accepts no name",
			change: func(t *testing.T, p peers) { knowsOnly(t, ca, p.server, "") },
			reason: certs.ReasonUnrecognizedName,
			facts:  []string{"upstream.test", "SNI"},
			advice: []string{"set tls.server_name_source to SERVER_NAME_SOURCE_NONE"},
		},
		{
			name: "a server that is too old",
			change: func(_ *testing.T, p peers) {
				p.client.MinVersion, p.client.MaxVersion = tls.VersionTLS12, tls.VersionTLS13
				p.server.MaxVersion = tls.VersionTLS10
			},
			reason: certs.ReasonProtocolVersion,
			facts:  []string{"TLS 1.2 to TLS 1.3", "with tls.min_version: TLS_VERSION_1_0 the handshake succeeds"},
			advice: []string{"set tls.min_version to TLS_VERSION_1_0", "RFC 8996"},
		},
		{
			name:   "a server that is too new",
			change: func(_ *testing.T, p peers) { p.server.MinVersion = tls.VersionTLS13 },
			reason: certs.ReasonProtocolVersion, only: tls.VersionTLS12,
			facts:  []string{"only TLS 1.2"},
			advice: []string{"set tls.max_version to TLS_VERSION_1_3"},
		},
		{
			name: "no cipher suite in common",
			change: func(_ *testing.T, p peers) {
				p.client.CipherSuites = []uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384}
				p.server.CipherSuites = []uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256}
			},
			reason: certs.ReasonNoCommonCipher, only: tls.VersionTLS12,
			facts:  []string{"TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384", "the default the handshake succeeds"},
			advice: []string{`add ["TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256"] to tls.cipher_suites`},
		},
		{
			name: "only weak cipher suites",
			change: func(_ *testing.T, p peers) {
				p.server.CipherSuites = []uint16{tls.TLS_ECDHE_ECDSA_WITH_RC4_128_SHA}
			},
			reason: certs.ReasonNoCommonCipher, only: tls.VersionTLS12,
			facts:  []string{"Go's secure list", "the handshake succeeds"},
			advice: []string{"TLS_ECDHE_ECDSA_WITH_RC4_128_SHA", "weak"},
		},
		{
			name: "no group in common",
			change: func(_ *testing.T, p peers) {
				p.client.Groups = []tls.CurveID{tls.CurveP521}
				p.server.CurvePreferences = []tls.CurveID{tls.X25519}
			},
			reason: certs.ReasonNoCommonGroup,
			facts:  []string{"P-521", "with tls.groups: P-521, X25519"},
			advice: []string{`set tls.groups to ["P-521", "X25519"`},
		},
		{
			name: "no protocol in common",
			change: func(_ *testing.T, p peers) {
				p.client.NextProtos, p.server.NextProtos = []string{"h2"}, []string{"http/1.1"}
			},
			reason: certs.ReasonALPNMismatch,
			facts:  []string{"h2", "with tls.alpn: http/1.1 the handshake succeeds"},
			advice: []string{`set tls.alpn to ["http/1.1"]`},
		},
		{
			name: "a server protocol that the probe does not try",
			change: func(_ *testing.T, p peers) {
				p.client.NextProtos, p.server.NextProtos = []string{"h2", "http/1.1"}, []string{"smtp"}
			},
			reason: certs.ReasonALPNMismatch,
			facts:  []string{"h2, http/1.1", "with tls.alpn: none the handshake succeeds"},
			advice: []string{"tls.alpn"},
		},
		{
			name: "no HTTP/2 where it is needed",
			change: func(_ *testing.T, p peers) {
				p.client.NextProtos, p.client.RequireALPN = []string{"h2"}, true
				p.server.NextProtos = []string{"http/1.1"}
			},
			reason: certs.ReasonALPNMismatch,
			advice: []string{"set http.protocol to HTTP_PROTOCOL_1_1"},
		},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
				if c.only != 0 && c.only != version {
					continue
				}
				t.Run(tls.VersionName(version), func(t *testing.T) {
					server, o := mutual(t, ca)
					o.MinVersion, o.MaxVersion = version, version
					target := probe.Target{Network: "tcp", Field: "endpoints[0]"}
					c.change(t, peers{server, &o, &target})
					target.Address, target.Client = serveTLS(t, server), client(t, o)
					r := runTarget(t, target)
					want(t, r, c.reason, c.facts, c.advice)
					if r.OK() != (c.reason == "") {
						t.Errorf("OK is %v", r.OK())
					}
				})
			}
		})
	}
}

// knowsOnly makes a server reject every SNI but one. Clients without SNI get a certificate
// for known.test.
func knowsOnly(t *testing.T, ca *certstest.CA, server *tls.Config, name string) {
	byDefault := certstest.TLS(t, ca.Server(t, "known.test"))
	server.Certificates = nil
	server.GetCertificate = func(h *tls.ClientHelloInfo) (*tls.Certificate, error) {
		if h.ServerName != "" && h.ServerName != name {
			return nil, nil // answered with unrecognized_name
		}
		return &byDefault, nil
	}
}

// withCRL returns a bundle of ca with a revocation list from it.
func withCRL(t *testing.T, ca *certstest.CA, o pki.CRLOptions) *certs.TrustBundle {
	t.Helper()
	list, err := ca.CA.CRL(o)
	if err != nil {
		t.Fatal(err)
	}
	b, err := certs.NewTrustBundle(certs.TrustSource{Certificates: ca.TrustPEM(), CRLs: []certs.CRLSource{{Data: list}}})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// trust returns a bundle of one certificate.
func trust(t *testing.T, der []byte) *certs.TrustBundle {
	t.Helper()
	b, err := certs.ParseTrustBundle(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// rootNamed returns a root with a unique name, so that no other root of the
// test matches it.
func rootNamed(t *testing.T, name string) *certstest.CA {
	t.Helper()
	ca, err := pki.NewRoot(pki.CAOptions{CommonName: name})
	if err != nil {
		t.Fatal(err)
	}
	return &certstest.CA{CA: ca}
}
