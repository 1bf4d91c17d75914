package certs_test

import (
	"crypto/tls"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"testing"

	"github.com/drawbridge-gateway/drawbridge/certs"
	"github.com/drawbridge-gateway/drawbridge/certs/certstest"
)

// policies are the Servers of a listener: open.test needs no client certificate, and
// mtls.test and *.mtls.test do.
type policies struct {
	ca         *certstest.CA
	open, mtls *certs.Server
	all        *certs.Servers
}

func newPolicies(t *testing.T) policies {
	ca := certstest.NewCA(t)
	p := policies{ca: ca}
	p.open = newServer(t, certs.ServerOptions{Certificates: []*certs.Certificate{certstest.Certificate(t, ca.Server(t, "open.test"))}})
	p.mtls = newServer(t, certs.ServerOptions{
		Certificates: []*certs.Certificate{certstest.Certificate(t, ca.Server(t, "mtls.test", "*.mtls.test"))},
		ClientAuth:   certs.ClientAuthRequired, ClientTrust: []*certs.TrustBundle{ca.Trust(t)},
	})
	p.all = certs.NewServers(p.open, certs.Policy{Hosts: []string{"mtls.test", "*.mtls.test"}, Server: p.mtls})
	return p
}

func TestServersAreChosenByTheMostSpecificName(t *testing.T) {
	base, wild, exact := new(certs.Server), new(certs.Server), new(certs.Server)
	s := certs.NewServers(base, certs.Policy{Hosts: []string{"*.example.test"}, Server: wild}, certs.Policy{Hosts: []string{"pay.example.test", "other.test"}, Server: exact})
	for name, want := range map[string]*certs.Server{
		"": base, "example.test": base, "unknown.test": base, "a.b.example.test": base, ".example.test": wild, "pay.example.test:443": base,
		"a.example.test": wild, "A.Example.TEST": wild, "a.example.test.": wild,
		"pay.example.test": exact, "PAY.example.test.": exact, "other.test": exact, "a.other.test": base,
	} {
		if got := s.For(name); got != want {
			t.Errorf("%q has the wrong policy", name)
		}
	}
	for _, c := range []struct {
		sni, host string
		serves    bool
	}{
		{"a.example.test", "b.example.test", true}, {"a.example.test", "pay.example.test", false}, {"pay.example.test", "a.example.test", false},
		{"pay.example.test", "other.test", true}, {"", "pay.example.test", false}, {"", "unknown.test", true}, {"unknown.test", "OTHER.test", false},
	} {
		if got := s.Serves(c.sni, c.host); got != c.serves {
			t.Errorf("a connection with SNI %q serves %q: %v", c.sni, c.host, got)
		}
	}
}

// A ticket is resumed only under the policy that made it, whatever the SNI.
func TestTicketsNeverCrossPolicies(t *testing.T) {
	bothVersions(t, func(t *testing.T, version uint16) {
		p := newPolicies(t)
		s := serve(t, p.all.Conn)
		cache := oneSession{}
		config := func(name string) *tls.Config {
			return &tls.Config{ServerName: name, RootCAs: p.ca.Pool(), ClientSessionCache: &cache, MaxVersion: version}
		}
		for i := range 2 {
			if state, _, err := reach(t, s, config("open.test")); err != nil || state.DidResume != (i > 0) {
				t.Fatalf("connection %d: resumed %v, error %v", i, state.DidResume, err)
			}
		}
		_, at, err := reach(t, s, config("mtls.test"))
		if err == nil {
			t.Error("a client without a certificate was accepted with a ticket of open.test")
		}
		if got := certs.ClassifyAccept(at.err); got != certs.ReasonClientCertificateRequired {
			t.Errorf("the server's reason: %s (%v)", got, at.err)
		}

		// In the other direction, and between hosts of one policy, the handshake is
		// full too.
		withCertificate := func(name string) *tls.Config {
			c := config(name)
			c.Certificates = []tls.Certificate{certstest.TLS(t, p.ca.Client(t, "alice"))}
			return c
		}
		for _, step := range []struct {
			name    string
			resumes bool
		}{{"mtls.test", false}, {"mtls.test", true}, {"a.mtls.test", false}, {"a.mtls.test", true}, {"open.test", false}} {
			if state, _, err := reach(t, s, withCertificate(step.name)); err != nil || state.DidResume != step.resumes {
				t.Errorf("%s: resumed %v, error %v", step.name, state.DidResume, err)
			}
		}

		// After a host has moved to another policy, its old tickets are invalid.
		moved := serve(t, certs.NewServers(p.mtls, certs.Policy{Hosts: []string{"open.test"}, Server: p.open}).Conn)
		if state, _, err := reach(t, moved, config("open.test")); err != nil || !state.DidResume {
			t.Errorf("under the same policy in other Servers: resumed %v, error %v", state.DidResume, err)
		}
		cache = oneSession{}
		if _, _, err := reach(t, s, config("open.test")); err != nil {
			t.Fatal(err)
		}
		closed := serve(t, certs.NewServers(p.open, certs.Policy{Hosts: []string{"open.test"}, Server: p.mtls}).Conn)
		if _, _, err := reach(t, closed, config("open.test")); err == nil {
			t.Error("open.test now needs a certificate, and an old ticket let a client in without one")
		}
	})
}

// hello returns the ClientHello record of a client.
func hello(t *testing.T, config *tls.Config) []byte {
	t.Helper()
	near, far := net.Pipe()
	defer near.Close()
	go func() {
		tls.Client(far, config).Handshake()
		far.Close()
	}()
	header := make([]byte, 5)
	if _, err := io.ReadFull(near, header); err != nil {
		t.Fatal(err)
	}
	record := make([]byte, 5+binary.BigEndian.Uint16(header[3:]))
	copy(record, header)
	if _, err := io.ReadFull(near, record[5:]); err != nil {
		t.Fatal(err)
	}
	return record
}

// chosen sends pieces of a ClientHello and returns the Server that answers, or nil
// without an answer.
func (p policies) chosen(t *testing.T, pieces ...[]byte) *certs.Server {
	t.Helper()
	var answered *certs.Server
	sent, received := net.Pipe()
	defer received.Close()
	go func() {
		for _, piece := range pieces {
			if _, err := sent.Write(piece); err != nil {
				break
			}
		}
		sent.Close()
	}()
	// Each Server has its own certificate, so the presented one identifies the
	// Server.
	answer := &writtenConn{Conn: received}
	if err := p.all.Conn(answer).Handshake(); err == nil {
		t.Fatal("a handshake completed without the client's part")
	}
	switch {
	case answer.has("mtls.test"):
		answered = p.mtls
	case answer.has("open.test"):
		answered = p.open
	}
	return answered
}

// writtenConn records the bytes that a server writes.
type writtenConn struct {
	net.Conn
	written []byte
}

func (a *writtenConn) Write(b []byte) (int, error) {
	a.written = append(a.written, b...)
	return len(b), nil
}

func (a *writtenConn) has(name string) bool { return containsName(a.written, name) }

func containsName(b []byte, name string) bool {
	for i := 0; i+len(name) <= len(b); i++ {
		if string(b[i:i+len(name)]) == name && (i == 0 || b[i-1] != '.') {
			return true
		}
	}
	return false
}

// The SNI chooses the policy, however a ClientHello is split into segments or records. A
// partial ClientHello chooses no policy.
func TestCutClientHelloChoosesItsPolicy(t *testing.T) {
	p := newPolicies(t)
	for name, want := range map[string]*certs.Server{"mtls.test": p.mtls, "open.test": p.open} {
		// In TLS 1.2, certificates are not encrypted.
		record := hello(t, &tls.Config{ServerName: name, InsecureSkipVerify: true, MaxVersion: tls.VersionTLS12})
		for i := 1; i < len(record); i++ {
			if p.chosen(t, record[:i], record[i:]) != want {
				t.Fatalf("%s in segments of %d bytes and the rest: another policy, or none", name, i)
			}
			if p.chosen(t, record[:i]) != nil {
				t.Fatalf("the first %d bytes of the hello of %s chose a policy", i, name)
			}
			if i <= 5 {
				continue
			}
			part := func(body []byte) []byte {
				return append(binary.BigEndian.AppendUint16([]byte{record[0], record[1], record[2]}, uint16(len(body))), body...)
			}
			if p.chosen(t, part(record[5:i]), part(record[i:])) != want {
				t.Fatalf("%s in records of %d bytes and the rest: another policy, or none", name, i-5)
			}
			if p.chosen(t, part(record[5:i])) != nil {
				t.Fatalf("a first record with %d bytes of the hello of %s chose a policy", i-5, name)
			}
		}
	}
}

// Each policy has its own versions, and its own certificates.
func TestPoliciesHaveTheirOwnSettings(t *testing.T) {
	ca := certstest.NewCA(t)
	certificate := func(name string) []*certs.Certificate {
		return []*certs.Certificate{certstest.Certificate(t, ca.Server(t, name))}
	}
	base := newServer(t, certs.ServerOptions{Certificates: certificate("base.test"), MinVersion: tls.VersionTLS13, NextProtos: []string{"h2"}})
	old := newServer(t, certs.ServerOptions{Certificates: certificate("old.test"), MaxVersion: tls.VersionTLS12, NextProtos: []string{"http/1.1"}})
	s := serve(t, certs.NewServers(base, certs.Policy{Hosts: []string{"old.test"}, Server: old}).Conn)
	for _, c := range []struct {
		name, proto string
		version     uint16
	}{{"base.test", "h2", tls.VersionTLS13}, {"old.test", "http/1.1", tls.VersionTLS12}} {
		state, _, err := reach(t, s, &tls.Config{ServerName: c.name, RootCAs: ca.Pool(), NextProtos: []string{"h2", "http/1.1"}})
		if err != nil || state.Version != c.version || state.NegotiatedProtocol != c.proto {
			t.Errorf("%s: version %s, protocol %q, error %v", c.name, tls.VersionName(state.Version), state.NegotiatedProtocol, err)
		}
	}
	if _, _, err := reach(t, s, &tls.Config{ServerName: "base.test", RootCAs: ca.Pool(), MaxVersion: tls.VersionTLS12}); err == nil {
		t.Error("the base accepted TLS 1.2, which only the policy of old.test allows")
	}
}

// A Peer describes the facts that its handshake proved.
func TestPeerOfAConnection(t *testing.T) {
	p := newPolicies(t)
	s := serve(t, p.all.Conn)
	config := &tls.Config{ServerName: "a.mtls.test", RootCAs: p.ca.Pool(), Certificates: []tls.Certificate{certstest.TLS(t, p.ca.Client(t, "alice"))}}
	_, at, err := reach(t, s, config)
	if err := errors.Join(err, at.err); err != nil {
		t.Fatal(err)
	}
	peer := p.all.Peer(at.state)
	if peer.Policy != p.mtls || peer.ServerName != "a.mtls.test" || len(peer.Certificates) == 0 || peer.Certificates[0].Subject.CommonName != "alice" {
		t.Errorf("%+v", peer)
	}
}
