package certs

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"strings"
	"time"

	"github.com/drawbridge-gateway/drawbridge/certs/tickets"
)

// Servers holds the Servers of one listener: one for the hosts of each TLS policy, and
// a base for every other name. The client's SNI chooses one. Every Server has its own
// ticket keys, so a session made under one policy is never resumed under another. A
// Servers is immutable and safe for concurrent use.
type Servers struct {
	base   *Server
	byHost map[string]*Server // the policies' Servers by host, in lower case; nil: no policies
	config *tls.Config        // chooses a Server's config for each ClientHello; nil: no policies
}

// A Policy is a Server for some hosts of a listener.
type Policy struct {
	// Hosts are exact names, or have "*" as their whole first label. No host may be
	// in two policies.
	Hosts  []string
	Server *Server
}

// NewServers returns the Servers of a listener.
func NewServers(base *Server, policies ...Policy) *Servers {
	s := &Servers{base: base}
	if len(policies) == 0 {
		return s
	}
	s.byHost = make(map[string]*Server)
	for _, p := range policies {
		for _, host := range p.Hosts {
			s.byHost[normalName(host)] = p.Server
		}
	}
	// crypto/tls calls GetConfigForClient once it has the whole ClientHello, however
	// fragmented, and before it uses any other setting.
	s.config = &tls.Config{GetConfigForClient: func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		return s.For(hello.ServerName).config, nil
	}}
	return s
}

// Conn returns the server side of a TLS connection on raw, before its handshake. The
// caller sets deadlines for the handshake. Closing it closes raw.
func (s *Servers) Conn(raw net.Conn) *tls.Conn {
	if s.config == nil {
		return s.base.Conn(raw)
	}
	return tls.Server(raw, s.config)
}

// For returns the Server for an SNI or host: the Server of the exact host, else of
// a wildcard, else the base.
func (s *Servers) For(name string) *Server {
	if s.byHost == nil {
		return s.base
	}
	name = normalName(name)
	if server := s.byHost[name]; server != nil {
		return server
	}
	if _, parent, ok := strings.Cut(name, "."); ok {
		if server := s.byHost["*."+parent]; server != nil {
			return server
		}
	}
	return s.base
}

// Knows reports whether a client may use this SNI. It is false only if no policy has
// the name, the base has ServerOptions.RejectUnknownSNI, and the name matches no
// certificate of the base.
func (s *Servers) Knows(name string) bool { return s.knows(s.For(name), name) }

func (s *Servers) knows(server *Server, name string) bool {
	return server != s.base || server.Knows(name)
}

// Serves reports whether a connection made with an SNI may carry requests for a host.
// It may not if the host belongs to another policy, whose client authentication the
// client has not passed, or if Knows returns false for the host.
func (s *Servers) Serves(sni, host string) bool {
	server := s.For(host)
	return server == s.For(sni) && s.knows(server, host)
}

// ownCertificate records which of our certificates a handshake presents.
type ownCertificate struct{ certificate *Certificate }

type ownCertificateKey struct{}

// Handshake completes the handshake of a connection from Conn, and returns the client.
func (s *Servers) Handshake(tc *tls.Conn) (*Peer, error) {
	var presented ownCertificate
	if err := tc.HandshakeContext(context.WithValue(context.Background(), ownCertificateKey{}, &presented)); err != nil {
		return nil, err
	}
	return s.peer(tc.ConnectionState(), presented.certificate), nil
}

// Peer returns the client of a connection whose handshake has completed.
func (s *Servers) Peer(state tls.ConnectionState) *Peer { return s.peer(state, nil) }

// peer returns the client of a connection on which we presented a
// certificate. After a resumption, presented is nil.
func (s *Servers) peer(state tls.ConnectionState, presented *Certificate) *Peer {
	server := s.For(state.ServerName)
	if presented == nil {
		presented = server.latest(state.ServerName)
	}
	p := server.verifier.peer(state.PeerCertificates, "", presented, server.o.Time())
	p.ServerName, p.Policy = state.ServerName, server
	return p
}

// latest returns the last certificate to expire among those for the name. A resumed
// session was probably made with it.
func (s *Server) latest(name string) *Certificate {
	var last *Certificate
	later := func(c *Certificate) bool {
		if last == nil || c.Leaf().NotAfter.After(last.Leaf().NotAfter) {
			last = c
		}
		return true
	}
	if name != "" {
		s.names.each(serverName(name), later)
	}
	if last == nil {
		for _, c := range s.names.sameNamed {
			later(c)
		}
	}
	return last
}

// Reverify verifies the client of a live connection again, by the policy of its SNI. A
// client in plaintext is a Peer without certificates. Reverify returns why the client no
// longer passes, or nil and the last moment at which it passes.
func (s *Servers) Reverify(p *Peer) (until time.Time, failure *VerifyError) {
	return s.For(p.ServerName).reverify(p)
}

func (s *Server) reverify(p *Peer) (until time.Time, failure *VerifyError) {
	now := s.o.Time()
	until, failure = p.reverifyOwn(now)
	switch {
	case failure != nil || s.o.ClientAuth == ClientAuthNone:
		return until, failure
	case len(p.Certificates) == 0 && s.o.ClientAuth == ClientAuthOptional:
		return until, nil
	case len(p.Certificates) == 0:
		return until, errNoClientCertificate
	}
	return s.verifier.reverify(p, "", now, until)
}

// TicketKeys are the ticket keys of several Servers, for another process. They are
// secrets: with them, recorded sessions of TLS 1.2 can be decrypted.
type TicketKeys map[string][]tickets.Key

// Add adds the keys of a Server, except those that are derived from shared secrets: the
// other process derives them too.
func (k TicketKeys) Add(s *Server) {
	if s != nil && s.o.Owner != "" {
		k[s.o.ticketIdentity()] = s.tickets.Own()
	}
}

// Encode returns the keys as bytes.
func (k TicketKeys) Encode() ([]byte, error) { return json.Marshal(k) }

// ParseTicketKeys returns the keys that Encode encoded. Empty text has no keys.
func ParseTicketKeys(text []byte) (TicketKeys, error) {
	k := TicketKeys{}
	if len(text) == 0 {
		return k, nil
	}
	if err := json.Unmarshal(text, &k); err != nil {
		return nil, fmt.Errorf("ticket keys: %w", err)
	}
	return k, nil
}

// ticketIdentity returns the values that sameIdentity compares, in a form that another
// process can compare.
func (o *ServerOptions) ticketIdentity() string {
	identity := sha256.New()
	fmt.Fprintf(identity, "%q %t %d %t %d %d %v %v %q", o.Owner, o.RejectUnknownSNI, o.ClientAuth, o.AllowMissingClientAuthUsage,
		o.MinVersion, o.MaxVersion, o.CipherSuites, o.Groups, o.NextProtos)
	for _, c := range o.Certificates {
		_, _ = io.WriteString(identity, " "+c.fingerprint) // never fails
	}
	return hex.EncodeToString(identity.Sum(nil))
}
