package certs_test

import (
	"crypto/tls"
	"crypto/x509"
	"math/big"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/drawbridge-gateway/drawbridge/certs"
	"github.com/drawbridge-gateway/drawbridge/certs/certstest"
	"github.com/drawbridge-gateway/drawbridge/certs/pki"
)

func tlsConfig(t testing.TB, issued *pki.Issued) *tls.Config {
	return &tls.Config{Certificates: []tls.Certificate{certstest.TLS(t, issued)}}
}

// Each case is a leaf under an intermediate under a root, with some lists.
func TestRevocation(t *testing.T) {
	now := time.Now()
	root := certstest.NewCA(t)
	below := root.Intermediate(t)
	server := below.Server(t, "upstream.test")
	serial := func(c *x509.Certificate) []*big.Int { return []*big.Int{c.SerialNumber} }
	crl := func(ca *certstest.CA, o pki.CRLOptions) []byte {
		t.Helper()
		text, err := ca.CA.CRL(o)
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	old := pki.CRLOptions{ThisUpdate: now.Add(-2 * time.Hour), NextUpdate: now.Add(-time.Hour)}
	oldAndRevoked := old
	oldAndRevoked.Revoked = serial(server.Leaf)
	future := pki.CRLOptions{ThisUpdate: now.Add(time.Hour)}
	// The forger has the CA's name and another key, like a replaced CA.
	forger, err := pki.NewRoot(pki.CAOptions{CommonName: root.Certificate().Subject.CommonName})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name string
		crls [][]byte
		want certs.Reason
		say  string
	}{
		{"no lists", nil, "", ""},
		{"both lists are current", [][]byte{root.CRL(t), below.CRL(t)}, "", ""},
		{"both lists in one source", [][]byte{join(root.CRL(t), below.CRL(t))}, "", ""},
		{"a list of an unknown CA in addition", [][]byte{root.CRL(t), certstest.NewCA(t).CRL(t), below.CRL(t)}, "", ""},
		{"the leaf is revoked", [][]byte{root.CRL(t), below.CRL(t, server.Leaf)}, certs.ReasonRevoked, `"CN=upstream.test", serial `},
		{"the leaf's serial is revoked by another issuer", [][]byte{root.CRL(t, server.Leaf), below.CRL(t)}, "", ""},
		{"the intermediate is revoked", [][]byte{root.CRL(t, below.Certificate()), below.CRL(t)}, certs.ReasonRevoked, "test intermediate"},
		{"no list of the intermediate", [][]byte{root.CRL(t)}, certs.ReasonCRLExpired, `none of its issuer, "CN=test intermediate`},
		{"no list of the root", [][]byte{below.CRL(t)}, certs.ReasonCRLExpired, `none of its issuer, "CN=test root`},
		{"only a list of an unknown CA", [][]byte{certstest.NewCA(t).CRL(t)}, certs.ReasonCRLExpired, "none of its issuer"},
		{"an outdated list", [][]byte{root.CRL(t), crl(below, old)}, certs.ReasonCRLExpired, "is outdated, the next one was due on"},
		{"an outdated list that revokes the leaf", [][]byte{root.CRL(t), crl(below, oldAndRevoked)}, certs.ReasonCRLExpired, "is outdated"},
		{"an outdated list of the root", [][]byte{crl(root, old), below.CRL(t)}, certs.ReasonCRLExpired, "is outdated"},
		{"an outdated list and its successor", [][]byte{root.CRL(t), crl(below, old), below.CRL(t)}, "", ""},
		{"a revocation that was withdrawn", [][]byte{root.CRL(t), crl(below, oldAndRevoked), below.CRL(t)}, "", ""},
		{"a list that is not valid yet", [][]byte{root.CRL(t), crl(below, future)}, certs.ReasonCRLExpired, "is not valid before"},
		{"two current lists, one of which revokes the leaf", [][]byte{root.CRL(t), below.CRL(t), below.CRL(t, server.Leaf)}, certs.ReasonRevoked, ""},
		{"a list signed by another key", [][]byte{crl(&certstest.CA{CA: forger}, pki.CRLOptions{}), below.CRL(t)}, certs.ReasonCRLExpired, "not signed by its issuer's key"},
		{"a list signed by another key and the right one", [][]byte{crl(&certstest.CA{CA: forger}, pki.CRLOptions{Revoked: serial(below.Certificate())}), root.CRL(t), below.CRL(t)}, "", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			bothVersions(t, func(t *testing.T, version uint16) {
				s := serveConfig(t, tlsConfig(t, server))
				client := newClient(t, certs.ClientOptions{
					ServerName: "upstream.test", Trust: []*certs.TrustBundle{root.TrustCRLs(t, c.crls...)}, MaxVersion: version,
				})
				for i := range 2 { // the second connection resumes
					state, err := connect(t, client, s.addr)
					if c.want != "" {
						wantReason(t, err, c.want)
						if !strings.Contains(err.Error(), c.say) {
							t.Errorf("error %q does not say %q", err, c.say)
						}
						continue
					}
					if err != nil || state.DidResume != (i > 0) {
						t.Errorf("connection %d: resumed %v, error %v", i, state.DidResume, err)
					}
				}
			})
		})
	}
}

// The same lists apply to the clients of a listener.
func TestRevocationOfClients(t *testing.T) {
	ca := certstest.NewCA(t)
	good, bad := ca.Client(t, "good"), ca.Client(t, "bad")
	old, err := ca.CA.CRL(pki.CRLOptions{ThisUpdate: time.Now().Add(-2 * time.Hour), NextUpdate: time.Now().Add(-time.Hour)})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name   string
		crl    []byte
		client *pki.Issued
		want   certs.Reason
	}{
		{"a client that is not revoked", ca.CRL(t, bad.Leaf), good, ""},
		{"a revoked client", ca.CRL(t, bad.Leaf), bad, certs.ReasonRevoked},
		{"an outdated list", old, good, certs.ReasonCRLExpired},
		{"a list of another CA", certstest.NewCA(t).CRL(t), good, certs.ReasonCRLExpired},
	} {
		t.Run(c.name, func(t *testing.T) {
			bothVersions(t, func(t *testing.T, version uint16) {
				server := newServer(t, certs.ServerOptions{
					Certificates: []*certs.Certificate{certstest.Certificate(t, ca.Server(t, "front.test"))},
					ClientAuth:   certs.ClientAuthRequired, ClientTrust: []*certs.TrustBundle{ca.TrustCRLs(t, c.crl)}, MaxVersion: version,
				})
				s := serve(t, server.Conn)
				client := newClient(t, certs.ClientOptions{
					ServerName: "front.test", Trust: []*certs.TrustBundle{ca.Trust(t)}, Certificate: certstest.Certificate(t, c.client),
				})
				for i := range 2 {
					_, err := connect(t, client, s.addr)
					at := <-s.handshakes
					if got := certs.ClassifyAccept(at.err); got != c.want {
						t.Errorf("connection %d: reason %q, want %q: %v", i, got, c.want, at.err)
					}
					if c.want == "" && at.state.DidResume != (i > 0) {
						t.Errorf("connection %d: resumed %v", i, at.state.DidResume)
					}
					if c.want != "" {
						wantReason(t, err, certs.ReasonClientCertificateRejected)
					}
				}
			})
		})
	}
}

// An expired list ends resumption too, in both directions.
func TestRevocationListsExpireForResumedSessions(t *testing.T) {
	bothVersions(t, func(t *testing.T, version uint16) {
		ca := certstest.NewCA(t)
		now := &clock{now: time.Now()}
		short, err := ca.CA.CRL(pki.CRLOptions{NextUpdate: now.now.Add(time.Hour)})
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range []struct {
			name                       string
			trustOfClient, trustOfUs   *certs.TrustBundle
			wantOfClient, wantOfServer certs.Reason
		}{
			{"of a server", ca.TrustCRLs(t, short), ca.Trust(t), certs.ReasonCRLExpired, certs.ReasonBadCertificate},
			{"of a client", ca.Trust(t), ca.TrustCRLs(t, short), certs.ReasonClientCertificateRejected, certs.ReasonCRLExpired},
		} {
			t.Run(c.name, func(t *testing.T) {
				now.Add(0)
				start := now.Now()
				defer func() { now.Add(start.Sub(now.Now())) }()
				server := newServer(t, certs.ServerOptions{
					Certificates: []*certs.Certificate{certstest.Certificate(t, ca.Server(t, "front.test"))},
					ClientAuth:   certs.ClientAuthRequired, ClientTrust: []*certs.TrustBundle{c.trustOfUs}, MaxVersion: version, Time: now.Now,
				})
				s := serve(t, server.Conn)
				client := newClient(t, certs.ClientOptions{
					ServerName: "front.test", Trust: []*certs.TrustBundle{c.trustOfClient},
					Certificate: certstest.Certificate(t, ca.Client(t, "c")), Time: now.Now,
				})
				for i := range 3 {
					if state, err := connect(t, client, s.addr); err != nil || state.DidResume != (i > 0) {
						t.Fatalf("connection %d: resumed %v, error %v", i, state.DidResume, err)
					}
					<-s.handshakes
				}
				now.Add(2 * time.Hour)
				_, err := connect(t, client, s.addr)
				at := <-s.handshakes
				wantReason(t, err, c.wantOfClient)
				if got := certs.ClassifyAccept(at.err); c.wantOfServer != "" && got != c.wantOfServer {
					t.Errorf("the server's reason is %q, want %q: %v", got, c.wantOfServer, at.err)
				}
			})
		}
	})
}

// A chain is accepted if no bundle with its anchor has lists. If one has lists,
// they apply although another has none.
func TestTheBundleOfTheAnchorProvidesRevocationLists(t *testing.T) {
	a, b := certstest.NewCA(t), certstest.NewCA(t)
	server := a.Server(t, "upstream.test")
	for _, c := range []struct {
		name  string
		trust []*certs.TrustBundle
		want  certs.Reason
	}{
		{"revoked", []*certs.TrustBundle{a.TrustCRLs(t, a.CRL(t, server.Leaf))}, certs.ReasonRevoked},
		{"lists of another bundle", []*certs.TrustBundle{a.Trust(t), b.TrustCRLs(t, b.CRL(t))}, ""},
		{"the same anchor without lists", []*certs.TrustBundle{a.Trust(t), a.TrustCRLs(t, a.CRL(t, server.Leaf))}, certs.ReasonRevoked},
		{"the same anchor with a list of each kind", []*certs.TrustBundle{a.TrustCRLs(t, a.CRL(t)), a.TrustCRLs(t, a.CRL(t, server.Leaf))}, certs.ReasonRevoked},
		{"a list in either bundle is enough", []*certs.TrustBundle{a.TrustCRLs(t, b.CRL(t)), a.TrustCRLs(t, a.CRL(t))}, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := serveConfig(t, tlsConfig(t, server))
			_, err := connect(t, newClient(t, certs.ClientOptions{ServerName: "upstream.test", Trust: c.trust}), s.addr)
			if c.want == "" && err != nil {
				t.Fatal(err)
			}
			if c.want != "" {
				wantReason(t, err, c.want)
			}
		})
	}
}

// An intermediate beside its root is an anchor: it needs no list, but a
// listing by the root applies.
func TestRevokedAnchors(t *testing.T) {
	root := certstest.NewCA(t)
	below := root.Intermediate(t)
	server := below.Server(t, "upstream.test")
	both := join(root.CertPEM(), below.CertPEM())
	for _, c := range []struct {
		name  string
		certs []byte
		crls  [][]byte
		want  certs.Reason
	}{
		{"not listed", both, [][]byte{below.CRL(t)}, ""},
		{"listed by its root", both, [][]byte{below.CRL(t), root.CRL(t, below.Certificate())}, certs.ReasonRevoked},
		{"listed by a missing root", below.CertPEM(), [][]byte{below.CRL(t), root.CRL(t, below.Certificate())}, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			source := certs.TrustSource{Certificates: c.certs}
			for _, text := range c.crls {
				source.CRLs = append(source.CRLs, certs.CRLSource{Data: text})
			}
			trust, err := certs.NewTrustBundle(source)
			if err != nil {
				t.Fatal(err)
			}
			s := serveConfig(t, tlsConfig(t, server))
			_, err = connect(t, newClient(t, certs.ClientOptions{ServerName: "upstream.test", Trust: []*certs.TrustBundle{trust}}), s.addr)
			if c.want == "" && err != nil {
				t.Fatal(err)
			}
			if c.want != "" {
				wantReason(t, err, c.want)
			}
		})
	}
}

// A CA that may not sign lists has no valid lists.
func TestListsOfACAWithoutCRLSign(t *testing.T) {
	ca := newSigner(t, func(*x509.Certificate) {})
	list := ca.crl(t, func(*x509.RevocationList) {})
	// This certificate has the same key and name, but lacks cRLSign.
	weakCA := reissue(t, &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: ca.cert.Subject, NotBefore: ca.cert.NotBefore, NotAfter: ca.cert.NotAfter,
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}, ca.key)
	server := leafOf(t, weakCA, ca.key, func(*x509.Certificate) {})
	trust, err := certs.NewTrustBundle(certs.TrustSource{Certificates: block("CERTIFICATE", weakCA.Raw), CRLs: []certs.CRLSource{{Data: list}}})
	if err != nil {
		t.Fatal(err)
	}
	s := serveConfig(t, &tls.Config{Certificates: []tls.Certificate{server}})
	_, err = connect(t, newClient(t, certs.ClientOptions{ServerName: "upstream.test", Trust: []*certs.TrustBundle{trust}}), s.addr)
	wantReason(t, err, certs.ReasonCRLExpired)
}

// A list with a scope applies only to certificates in its scope.
func TestScopesOfRevocationLists(t *testing.T) {
	const point = "http://crl.test/1"
	idp := func(parts ...[]byte) func(*x509.RevocationList) {
		return func(l *x509.RevocationList) {
			l.ExtraExtensions = append(l.ExtraExtensions, extension(28, true, der(0x30, parts...)...))
		}
	}
	named := func(uris ...string) []byte {
		var names [][]byte
		for _, u := range uris {
			names = append(names, der(0x86, []byte(u)))
		}
		return der(0xa0, der(0xa0, names...))
	}
	ca := newSigner(t, func(*x509.Certificate) {})
	plain := leafOf(t, ca.cert, ca.key, func(*x509.Certificate) {})
	pointed := leafOf(t, ca.cert, ca.key, func(c *x509.Certificate) { c.CRLDistributionPoints = []string{"http://other.test", point} })
	for _, c := range []struct {
		name   string
		scope  func(*x509.RevocationList)
		server tls.Certificate
		want   certs.Reason
	}{
		{"only end entities", idp([]byte{0x81, 1, 0xff}), plain, ""},
		{"only CAs", idp([]byte{0x82, 1, 0xff}), plain, certs.ReasonCRLExpired},
		{"flags that are off", idp([]byte{0x81, 1, 0}, []byte{0x82, 1, 0}, []byte{0x84, 1, 0}), plain, ""},
		{"a distribution point that the certificate has", idp(named(point)), pointed, ""},
		{"one of several", idp(named("http://x.test", point)), pointed, ""},
		{"a distribution point that the certificate lacks", idp(named("http://x.test")), pointed, certs.ReasonCRLExpired},
		{"a certificate without one", idp(named(point)), plain, certs.ReasonCRLExpired},
	} {
		t.Run(c.name, func(t *testing.T) {
			trust, err := certs.NewTrustBundle(certs.TrustSource{Certificates: ca.pem(), CRLs: []certs.CRLSource{{Data: ca.crl(t, c.scope)}}})
			if err != nil {
				t.Fatal(err)
			}
			s := serveConfig(t, &tls.Config{Certificates: []tls.Certificate{c.server}})
			_, err = connect(t, newClient(t, certs.ClientOptions{ServerName: "upstream.test", Trust: []*certs.TrustBundle{trust}}), s.addr)
			if c.want == "" && err != nil {
				t.Fatal(err)
			}
			if c.want != "" {
				wantReason(t, err, c.want)
			}
		})
	}
}

// A list revokes exactly the listed serial number, even among numbers that a
// careless comparison would confuse.
func TestSerialNumbers(t *testing.T) {
	ca := newSigner(t, func(*x509.Certificate) {})
	long := new(big.Int).Lsh(big.NewInt(1), 300) // longer than RFC 5280 allows, but in use
	numbers := []*big.Int{big.NewInt(1), big.NewInt(127), big.NewInt(128), big.NewInt(255), big.NewInt(256), big.NewInt(1 << 30),
		long, new(big.Int).Add(long, big.NewInt(1)), new(big.Int).Lsh(big.NewInt(1), 152), new(big.Int).Lsh(big.NewInt(0xff), 151)}
	for i, number := range numbers {
		server := leafOf(t, ca.cert, ca.key, func(c *x509.Certificate) { c.SerialNumber = number })
		s := serveConfig(t, &tls.Config{Certificates: []tls.Certificate{server}})
		for _, itself := range []bool{true, false} {
			list := ca.crl(t, func(l *x509.RevocationList) {
				for j, n := range numbers {
					if (i == j) == itself {
						l.RevokedCertificateEntries = append(l.RevokedCertificateEntries, x509.RevocationListEntry{SerialNumber: n, RevocationTime: time.Now()})
					}
				}
			})
			trust, err := certs.NewTrustBundle(certs.TrustSource{Certificates: ca.pem(), CRLs: []certs.CRLSource{{Data: list}}})
			if err != nil {
				t.Fatal(err)
			}
			_, err = connect(t, newClient(t, certs.ClientOptions{ServerName: "upstream.test", Trust: []*certs.TrustBundle{trust}}), s.addr)
			if got := certs.Classify(err); itself && got != certs.ReasonRevoked || !itself && err != nil {
				t.Errorf("serial %x, listed %v: %v", number, itself, err)
			}
		}
	}
}

// After a list was replaced, no old session is resumed, and certificates that
// the new list revokes are rejected.
func TestSessionsEndWithTheirRevocationLists(t *testing.T) {
	ca := certstest.NewCA(t)
	front, client := ca.Server(t, "front.test"), ca.Client(t, "c")
	clean := ca.TrustCRLs(t, ca.CRL(t))
	bothVersions(t, func(t *testing.T, version uint16) {
		so := certs.ServerOptions{
			Certificates: []*certs.Certificate{certstest.Certificate(t, front)}, MaxVersion: version,
			ClientAuth: certs.ClientAuthRequired, ClientTrust: []*certs.TrustBundle{clean},
		}
		co := certs.ClientOptions{
			ServerName: "front.test", Trust: []*certs.TrustBundle{clean}, Certificate: certstest.Certificate(t, client),
		}
		var now atomic.Pointer[certs.Server]
		now.Store(newServer(t, so))
		s := serve(t, func(raw net.Conn) *tls.Conn { return now.Load().Conn(raw) })
		first := newClient(t, co)
		step := func(c *certs.Client, resumed bool, ours, theirs certs.Reason) {
			t.Helper()
			_, err := connect(t, c, s.addr)
			at := <-s.handshakes
			if certs.Classify(err) != ours || certs.ClassifyAccept(at.err) != theirs || at.state.DidResume != resumed {
				t.Errorf("resumed %v, errors %v and %v", at.state.DidResume, err, at.err)
			}
		}
		step(first, false, "", "")
		step(first, true, "", "")

		so.ClientTrust = []*certs.TrustBundle{ca.TrustCRLs(t, ca.CRL(t, ca.Client(t, "another").Leaf))}
		now.Store(newServer(t, so))
		step(first, false, "", "") // only the listener has the new list
		step(first, true, "", "")

		co.Replaces, co.Trust = first, so.ClientTrust
		second := newClient(t, co)
		step(second, false, "", "") // only the upstream has the new list
		wantStats(t, second, 0, full{certs.FullCredentialsChanged: 1})

		so.ClientTrust = []*certs.TrustBundle{ca.TrustCRLs(t, ca.CRL(t, client.Leaf))}
		now.Store(newServer(t, so))
		step(second, false, certs.ReasonClientCertificateRejected, certs.ReasonRevoked)

		co.Replaces, co.Trust = second, []*certs.TrustBundle{ca.TrustCRLs(t, ca.CRL(t, front.Leaf))}
		step(newClient(t, co), false, certs.ReasonRevoked, certs.ReasonBadCertificate)
	})
}
