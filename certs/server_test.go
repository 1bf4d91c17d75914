package certs_test

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/drawbridge-gateway/drawbridge/certs"
	"github.com/drawbridge-gateway/drawbridge/certs/certstest"
	"github.com/drawbridge-gateway/drawbridge/certs/pki"
)

// reach connects a crypto/tls client to the server and returns both sides'
// results.
func reach(t *testing.T, s *tlsServer, config *tls.Config) (tls.ConnectionState, handshakeResult, error) {
	t.Helper()
	raw, err := net.Dial("tcp", s.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer raw.Close()
	raw.SetDeadline(time.Now().Add(time.Minute))
	c := tls.Client(raw, config)
	if err = c.Handshake(); err == nil {
		_, err = io.ReadFull(c, make([]byte, 1))
	}
	state := c.ConnectionState()
	c.Close()
	return state, <-s.handshakes, err
}

func TestServerChoosesByName(t *testing.T) {
	ca := certstest.NewCA(t)
	var list []*certs.Certificate
	for _, names := range [][]string{{"first.test"}, {"second.test"}, {"*.wild.test"}, {"exact.wild.test"}} {
		list = append(list, certstest.Certificate(t, ca.Server(t, names...)))
	}
	rsa := certstest.Certificate(t, ca.Leaf(t, pki.LeafOptions{DNSNames: []string{"second.test"}, Key: pki.RSA2048}))
	list = append(list, rsa)
	onlyRSA := []uint16{tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256}
	for _, reject := range []bool{false, true} {
		server := newServer(t, certs.ServerOptions{Certificates: list, RejectUnknownSNI: reject})
		s := serve(t, server.Conn)
		for _, c := range []struct {
			name, sni, want string
			rsaOnly         bool
			unknown         bool
		}{
			{name: "the first", sni: "first.test", want: "first.test"},
			{name: "the second", sni: "second.test", want: "second.test"},
			{name: "a name in another case", sni: "SECOND.test", want: "second.test"},
			{name: "a wildcard", sni: "a.wild.test", want: "*.wild.test"},
			{name: "the first of two matching certificates", sni: "exact.wild.test", want: "*.wild.test"},
			{name: "the key type that the client supports", sni: "second.test", want: "second.test", rsaOnly: true},
			{name: "unknown", sni: "other.test", want: "first.test", unknown: true},
			{name: "no name", sni: "", want: "first.test", unknown: true},
			{name: "an address", sni: "127.0.0.1", want: "first.test", unknown: true},
		} {
			t.Run(c.name, func(t *testing.T) {
				config := &tls.Config{ServerName: c.sni, InsecureSkipVerify: true}
				if c.rsaOnly {
					config.MaxVersion, config.CipherSuites = tls.VersionTLS12, onlyRSA
				}
				state, at, err := reach(t, s, config)
				if reject && c.unknown {
					wantReason(t, err, certs.ReasonUnrecognizedName)
					if got := certs.ClassifyAccept(at.err); got != certs.ReasonUnrecognizedName {
						t.Errorf("the server's reason: %s (%v)", got, at.err)
					}
					return
				}
				if err != nil {
					t.Fatal(err)
				}
				if got := state.PeerCertificates[0].DNSNames[0]; got != c.want {
					t.Errorf("presented %s, want %s", got, c.want)
				}
				if c.rsaOnly && state.PeerCertificates[0].PublicKeyAlgorithm != x509.RSA {
					t.Errorf("presented a key of kind %s", state.PeerCertificates[0].PublicKeyAlgorithm)
				}
			})
		}
	}
}

// A ticket is valid only under its name, and an unknown name is rejected even
// with a ticket.
func TestServerTicketsAreBoundToTheName(t *testing.T) {
	bothVersions(t, func(t *testing.T, version uint16) {
		ca := certstest.NewCA(t)
		server := newServer(t, certs.ServerOptions{RejectUnknownSNI: true, Certificates: []*certs.Certificate{
			certstest.Certificate(t, ca.Server(t, "a.test")), certstest.Certificate(t, ca.Server(t, "b.test")),
		}})
		s := serve(t, server.Conn)
		cache := oneSession{}
		config := func(name string) *tls.Config {
			return &tls.Config{ServerName: name, InsecureSkipVerify: true, ClientSessionCache: &cache, MaxVersion: version}
		}
		for i := range 2 {
			if state, _, err := reach(t, s, config("a.test")); err != nil || state.DidResume != (i > 0) {
				t.Fatalf("connection %d: resumed %v, error %v", i, state.DidResume, err)
			}
		}
		if state, _, err := reach(t, s, config("b.test")); err != nil || state.DidResume {
			t.Errorf("under the other name: resumed %v, error %v", state.DidResume, err)
		}
		_, _, err := reach(t, s, config("c.test"))
		wantReason(t, err, certs.ReasonUnrecognizedName)
	})
}

// oneSession offers the last session under any name, as a hostile client can.
type oneSession struct{ last *tls.ClientSessionState }

func (c *oneSession) Get(string) (*tls.ClientSessionState, bool) { return c.last, c.last != nil }
func (c *oneSession) Put(_ string, cs *tls.ClientSessionState) {
	if cs != nil {
		c.last = cs
	}
}

func TestServerVerifiesClients(t *testing.T) {
	ca, other := certstest.NewCA(t), certstest.NewCA(t)
	now := time.Now()
	with := func(issued *pki.Issued) []tls.Certificate { return []tls.Certificate{certstest.TLS(t, issued)} }
	for _, c := range []struct {
		name     string
		certs    []tls.Certificate
		optional certs.Reason // the reason of the server if the certificate is optional
		required certs.Reason
	}{
		{"no certificate", nil, "", certs.ReasonClientCertificateRequired},
		{"a valid certificate", with(ca.Client(t, "c")), "", ""},
		{"an intermediate in the chain", with(ca.Intermediate(t).Client(t, "c")), "", ""},
		{"a certificate of another CA", with(other.Client(t, "c")), certs.ReasonUnknownCA, certs.ReasonUnknownCA},
		{"a server certificate", with(ca.Server(t, "c.test")), certs.ReasonWrongKeyUsage, certs.ReasonWrongKeyUsage},
		{"a certificate for both sides", with(ca.Leaf(t, pki.LeafOptions{Usage: pki.Both, DNSNames: []string{"c.test"}})), "", ""},
		{"expired", with(ca.Leaf(t, pki.LeafOptions{Usage: pki.Client, CommonName: "c", NotBefore: now.Add(-2 * time.Hour), NotAfter: now.Add(-time.Hour)})), certs.ReasonExpired, certs.ReasonExpired},
		{"not valid yet", with(ca.Leaf(t, pki.LeafOptions{Usage: pki.Client, CommonName: "c", NotBefore: now.Add(time.Hour), NotAfter: now.Add(2 * time.Hour)})), certs.ReasonNotYetValid, certs.ReasonNotYetValid},
		{"self-signed", []tls.Certificate{selfSigned(t, func(*x509.Certificate) {})}, certs.ReasonUnknownCA, certs.ReasonUnknownCA},
	} {
		for auth, want := range map[certs.ClientAuth]certs.Reason{
			certs.ClientAuthNone: "", certs.ClientAuthOptional: c.optional, certs.ClientAuthRequired: c.required,
		} {
			t.Run(c.name, func(t *testing.T) {
				bothVersions(t, func(t *testing.T, version uint16) {
					o := certs.ServerOptions{Certificates: []*certs.Certificate{certstest.Certificate(t, ca.Server(t, "a.test"))}, ClientAuth: auth}
					if auth != certs.ClientAuthNone {
						o.ClientTrust = []*certs.TrustBundle{ca.Trust(t)}
					}
					s := serve(t, newServer(t, o).Conn)
					// The client sends this certificate whatever CAs the server names.
					config := &tls.Config{ServerName: "a.test", RootCAs: ca.Pool(), MaxVersion: version,
						GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
							if len(c.certs) == 0 {
								return new(tls.Certificate), nil
							}
							return &c.certs[0], nil
						}}
					_, at, err := reach(t, s, config)
					if (err != nil) != (want != "") {
						t.Errorf("the client's error: %v", err)
					}
					if got := certs.ClassifyAccept(at.err); got != want {
						t.Errorf("the server's reason: %q (%v), want %q", got, at.err, want)
					}
				})
			})
		}
	}
}

// A ticket is invalid at another Server, even one with the same options, and a
// client must authenticate to each Server.
func TestServerTicketsNeverCrossServers(t *testing.T) {
	bothVersions(t, func(t *testing.T, version uint16) {
		a, b := certstest.NewCA(t), certstest.NewCA(t)
		cert := certstest.Certificate(t, a.Server(t, "a.test"))
		options := func(ca *certstest.CA) certs.ServerOptions {
			return certs.ServerOptions{Certificates: []*certs.Certificate{cert}, ClientAuth: certs.ClientAuthRequired, ClientTrust: []*certs.TrustBundle{ca.Trust(t)}}
		}
		var current atomic.Pointer[certs.Server]
		current.Store(newServer(t, options(a)))
		s := serve(t, func(raw net.Conn) *tls.Conn { return current.Load().Conn(raw) })
		client := certstest.TLS(t, a.Client(t, "c"))
		config := &tls.Config{ServerName: "a.test", RootCAs: a.Pool(), ClientSessionCache: &oneSession{}, MaxVersion: version,
			GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &client, nil }}
		for i := range 2 {
			if state, _, err := reach(t, s, config); err != nil || state.DidResume != (i > 0) {
				t.Fatalf("connection %d: resumed %v, error %v", i, state.DidResume, err)
			}
		}
		current.Store(newServer(t, options(a)))
		if state, _, err := reach(t, s, config); err != nil || state.DidResume {
			t.Errorf("after a swap to the same options: resumed %v, error %v", state.DidResume, err)
		}
		current.Store(newServer(t, options(b)))
		_, at, err := reach(t, s, config)
		if err == nil || at.state.DidResume {
			t.Errorf("after a swap to another CA: error %v, resumed %v", err, at.state.DidResume)
		}
		if got := certs.ClassifyAccept(at.err); got != certs.ReasonUnknownCA {
			t.Errorf("the server's reason: %s (%v)", got, at.err)
		}
	})
}

// A session is not resumed after the client's chain has expired.
func TestServerVerifiesResumedClients(t *testing.T) {
	bothVersions(t, func(t *testing.T, version uint16) {
		ca := certstest.NewCA(t)
		now := &clock{now: time.Now()}
		mid := intermediate(t, ca, now.now.Add(-time.Hour), now.now.Add(time.Hour))
		server := newServer(t, certs.ServerOptions{
			Certificates: []*certs.Certificate{certstest.Certificate(t, ca.Server(t, "a.test"))},
			ClientAuth:   certs.ClientAuthRequired, ClientTrust: []*certs.TrustBundle{ca.Trust(t)}, Time: now.Now,
		})
		s := serve(t, server.Conn)
		config := &tls.Config{ServerName: "a.test", RootCAs: ca.Pool(), ClientSessionCache: &oneSession{}, MaxVersion: version,
			Certificates: []tls.Certificate{leaf(t, mid, pki.LeafOptions{Usage: pki.Client, CommonName: "c", NotAfter: now.now.Add(9 * time.Hour)})}}
		for i := range 2 {
			if state, _, err := reach(t, s, config); err != nil || state.DidResume != (i > 0) {
				t.Fatalf("connection %d: resumed %v, error %v", i, state.DidResume, err)
			}
		}
		now.Add(2 * time.Hour)
		_, at, err := reach(t, s, config)
		if err == nil {
			t.Error("the client was accepted")
		}
		if got := certs.ClassifyAccept(at.err); got != certs.ReasonExpired {
			t.Errorf("the server's reason: %s (%v)", got, at.err)
		}
	})
}

// ClassifyAccept returns the reason of each handshake failure on a listener's
// side.
func TestClassifyAccept(t *testing.T) {
	ca := certstest.NewCA(t)
	server := newServer(t, certs.ServerOptions{
		Certificates: []*certs.Certificate{certstest.Certificate(t, ca.Server(t, "a.test"))},
		MinVersion:   tls.VersionTLS12, MaxVersion: tls.VersionTLS12, NextProtos: []string{"h2"},
		CipherSuites: []uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256}, Groups: []tls.CurveID{tls.X25519},
	})
	s := serve(t, server.Conn)
	for _, c := range []struct {
		name   string
		client func(c *tls.Config)
		want   certs.Reason
	}{
		{"nothing wrong", func(*tls.Config) {}, ""},
		{"the client knows another CA", func(c *tls.Config) { c.RootCAs = certstest.NewCA(t).Pool() }, certs.ReasonBadCertificate},
		{"the client wants another version", func(c *tls.Config) { c.MinVersion = tls.VersionTLS13 }, certs.ReasonProtocolVersion},
		{"the client wants another suite", func(c *tls.Config) {
			c.MaxVersion, c.CipherSuites = tls.VersionTLS12, []uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384}
		}, certs.ReasonNoCommonCipher},
		{"the client wants another protocol", func(c *tls.Config) { c.NextProtos = slices.Repeat([]string{"\x1b[31m\nx"}, 2000) }, certs.ReasonALPNMismatch},
	} {
		t.Run(c.name, func(t *testing.T) {
			config := &tls.Config{ServerName: "a.test", RootCAs: ca.Pool(), NextProtos: []string{"h2"}}
			c.client(config)
			_, at, _ := reach(t, s, config)
			if got := certs.ClassifyAccept(at.err); got != c.want {
				t.Errorf("reason %q, want %q: %v", got, c.want, at.err)
			}
			text := certs.ErrorText(at.err)
			checkText(t, text)
			if (text == "") != (at.err == nil) {
				t.Errorf("text %q of error %v", text, at.err)
			}
		})
	}

	for _, c := range []struct {
		name string
		send string
		want certs.Reason
	}{
		{"HTTP", "GET / HTTP/1.1\r\nHost: a\r\n\r\n", certs.ReasonNotTLS},
		{"SSLv2", "\x80\x2e\x01\x00\x02\x00\x15\x00\x00\x00\x10", certs.ReasonProtocolVersion},
		{"no bytes", "", certs.ReasonPeerClosed},
	} {
		raw, err := net.Dial("tcp", s.addr)
		if err != nil {
			t.Fatal(err)
		}
		io.WriteString(raw, c.send)
		raw.(*net.TCPConn).CloseWrite()
		at := <-s.handshakes
		raw.Close()
		if got := certs.ClassifyAccept(at.err); got != c.want {
			t.Errorf("%s: reason %q, want %q: %v", c.name, got, c.want, at.err)
		}
	}

	for _, c := range []struct {
		err  error
		want certs.Reason
	}{
		{nil, ""},
		{&net.OpError{Op: "remote error", Err: tls.AlertError(48)}, certs.ReasonUnknownCA},
		{&net.OpError{Op: "remote error", Err: tls.AlertError(45)}, certs.ReasonExpired},
		{&net.OpError{Op: "remote error", Err: tls.AlertError(44)}, certs.ReasonRevoked},
		{&net.OpError{Op: "remote error", Err: tls.AlertError(46)}, certs.ReasonBadCertificate},
		{&timeoutError{}, certs.ReasonHandshakeTimeout},
		{errors.New("x"), certs.ReasonOther},
	} {
		if got := certs.ClassifyAccept(c.err); got != c.want {
			t.Errorf("%v: reason %q, want %q", c.err, got, c.want)
		}
	}
}

type timeoutError struct{}

func (*timeoutError) Error() string   { return "too late" }
func (*timeoutError) Timeout() bool   { return true }
func (*timeoutError) Temporary() bool { return true }

func TestNewServerRefuses(t *testing.T) {
	ca := certstest.NewCA(t)
	list := []*certs.Certificate{certstest.Certificate(t, ca.Server(t, "a.test"))}
	for _, c := range []struct {
		name, field string
		o           certs.ServerOptions
	}{
		{"no certificate", "certificates", certs.ServerOptions{}},
		{"a certificate that is missing", "certificates[1]", certs.ServerOptions{Certificates: append(list[:1:1], nil)}},
		{"clients without trust", "client_trust_bundles", certs.ServerOptions{Certificates: list, ClientAuth: certs.ClientAuthRequired}},
		{"optional clients without trust", "client_trust_bundles", certs.ServerOptions{Certificates: list, ClientAuth: certs.ClientAuthOptional}},
		{"an empty bundle", "client_trust_bundles[0]", certs.ServerOptions{Certificates: list, ClientAuth: certs.ClientAuthRequired, ClientTrust: []*certs.TrustBundle{{}}}},
		{"no such authentication", "client_auth", certs.ServerOptions{Certificates: list, ClientAuth: 9}},
		{"min above max", "min_version", certs.ServerOptions{Certificates: list, MinVersion: tls.VersionTLS13, MaxVersion: tls.VersionTLS12}},
		{"a long protocol", "alpn[0]", certs.ServerOptions{Certificates: list, NextProtos: []string{strings.Repeat("x", 256)}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := certs.NewServer(c.o)
			wantFault(t, err, c.field)
		})
	}
}
