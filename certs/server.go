package certs

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/drawbridge-gateway/drawbridge/certs/tickets"
)

// ClientAuth is the client authentication policy of a Server.
type ClientAuth int

// The zero ClientAuth is ClientAuthNone.
const (
	// ClientAuthNone requests no certificate.
	ClientAuthNone ClientAuth = iota
	// ClientAuthOptional requests a certificate. If the client sends one, it must
	// verify.
	ClientAuthOptional
	// ClientAuthRequired requires a certificate that verifies.
	ClientAuthRequired
)

// ServerOptions configures a Server.
type ServerOptions struct {
	// Certificates are the certificates to choose from, at least one. The server
	// presents the first that is valid for the client's SNI and usable by the
	// client. Clients without SNI or with an unknown name get the first
	// certificate of all.
	Certificates []*Certificate
	// RejectUnknownSNI rejects a client whose SNI matches no certificate, or that
	// sends no SNI, with the alert unrecognized_name.
	RejectUnknownSNI bool
	// ClientAuth is the client authentication policy.
	ClientAuth ClientAuth
	// ClientTrust is the set of trust anchors for clients. Required unless
	// ClientAuth is ClientAuthNone; the system's roots are never used.
	ClientTrust []*TrustBundle
	// ClientSubjectAltNames are exact names; a client's certificate must have at
	// least one of them. Empty means any name.
	ClientSubjectAltNames []SAN
	// AllowMissingClientAuthUsage accepts client certificates whose extended key
	// usages include serverAuth but not clientAuth, like the certificates of
	// public CAs. With it, the alert for any rejected certificate is
	// bad_certificate.
	AllowMissingClientAuthUsage bool
	// MinVersion and MaxVersion are crypto/tls constants. Zero means 1.2 and 1.3.
	MinVersion, MaxVersion uint16
	// CipherSuites are for TLS 1.2 and below. Empty means Go's secure list.
	CipherSuites []uint16
	// Groups are the key-exchange groups. Empty means Go's list.
	Groups []tls.CurveID
	// NextProtos are offered by ALPN, most preferred first.
	NextProtos []string
	// Replaces is the Server that the new one replaces. If the two differ only in
	// ClientTrust and ClientSubjectAltNames, the new Server accepts the session
	// tickets of the old one, because VerifyConnection checks resumed clients against
	// the new values. Both record anchors in the same AnchorLog. May be nil.
	Replaces *Server
	// Owner names what the Server is for, such as a listener. Only Servers with an owner
	// take part in TicketKeys.
	Owner string
	// Inherited are ticket keys of another process. The Server uses those of a Server of
	// the same owner and identity. May be nil.
	Inherited TicketKeys
	// TicketSecrets are shared by the gateways of a fleet. Servers with the same secrets,
	// owner and identity accept each other's tickets. Nil: each Server has its own keys.
	TicketSecrets *tickets.Shared
	// Time returns the current time for certificates and sessions. Nil means
	// time.Now.
	Time func() time.Time
}

// newTicketKeys returns the ticket keys of a new Server.
func (o *ServerOptions) newTicketKeys(inherited TicketKeys) *tickets.Keys {
	t := tickets.Options{Now: o.Time}
	if len(inherited) > 0 { // the identity takes time for each certificate
		t.Own = inherited[o.ticketIdentity()]
	}
	if o.Owner != "" && o.TicketSecrets != nil {
		t.Shared, t.Identity = o.TicketSecrets, o.ticketIdentity
	}
	return tickets.New(t)
}

// sameIdentity reports whether clients may resume the sessions of one Server with
// the other.
func (o *ServerOptions) sameIdentity(p *ServerOptions) bool {
	return slices.Equal(o.Certificates, p.Certificates) && o.RejectUnknownSNI == p.RejectUnknownSNI && o.ClientAuth == p.ClientAuth &&
		o.AllowMissingClientAuthUsage == p.AllowMissingClientAuthUsage &&
		o.MinVersion == p.MinVersion && o.MaxVersion == p.MaxVersion && slices.Equal(o.CipherSuites, p.CipherSuites) &&
		slices.Equal(o.Groups, p.Groups) && slices.Equal(o.NextProtos, p.NextProtos)
}

// A Server accepts TLS connections for one revision of a listener. It has its
// own session ticket keys, so that a session made under one set of
// certificates and client authentication is never resumed under another. It is
// safe for concurrent use and needs no Close.
type Server struct {
	o        ServerOptions // without Replaces
	config   *tls.Config
	tickets  *tickets.Keys
	names    nameIndex
	verifier verifier
	anchors  *AnchorLog // records the anchors of clients; never nil
}

// NewServer checks the options. The error is Faults with the fields of the API.
func NewServer(o ServerOptions) (*Server, error) {
	var bad Faults
	o.MinVersion, o.MaxVersion = checkVersions(&bad, o.MinVersion, o.MaxVersion)
	checkNextProtos(&bad, o.NextProtos)
	if len(o.Certificates) == 0 {
		bad.add("certificates", "a server needs at least one")
	}
	for i, c := range o.Certificates {
		if c == nil {
			bad.add(fmt.Sprintf("certificates[%d]", i), "is missing")
		}
	}
	if o.Time == nil {
		o.Time = time.Now
	}
	before := o.Replaces
	o.Replaces = nil
	inherited := o.Inherited
	o.Inherited = nil
	s := &Server{o: o, anchors: new(AnchorLog)}
	if before != nil {
		s.anchors = before.anchors
		if o.sameIdentity(&before.o) {
			s.tickets = before.tickets
		}
	}
	if s.tickets == nil && bad.err() == nil {
		s.tickets = o.newTicketKeys(inherited)
	}
	s.config = &tls.Config{
		MinVersion:       o.MinVersion,
		MaxVersion:       o.MaxVersion,
		CurvePreferences: o.Groups,
		NextProtos:       o.NextProtos,
		Time:             o.Time,
		GetCertificate:   s.certificate,
		WrapSession:      s.wrap,
		UnwrapSession:    s.unwrap,
		VerifyConnection: s.accept,

		DynamicRecordSizingDisabled: true,
	}
	if len(o.CipherSuites) > 0 {
		s.config.CipherSuites = o.CipherSuites
	}
	switch o.ClientAuth {
	case ClientAuthNone:
	case ClientAuthOptional:
		s.config.ClientAuth = tls.VerifyClientCertIfGiven
	case ClientAuthRequired:
		s.config.ClientAuth = tls.RequireAndVerifyClientCert
	default:
		bad.add("client_auth", "is not a known value")
	}
	if s.config.ClientAuth != tls.NoClientCert {
		if len(o.ClientTrust) == 0 {
			bad.add("client_trust_bundles", "without one, no client certificate can be verified")
		} else {
			s.verifier = verifier{
				trust:           o.ClientTrust,
				roots:           checkTrust(&bad, "client_trust_bundles", o.ClientTrust),
				usage:           x509.ExtKeyUsageClientAuth,
				allowServerAuth: o.AllowMissingClientAuthUsage,
				sans:            o.ClientSubjectAltNames,
				anyName:         true,
				now:             o.Time,
			}
			// ClientCAs only sets the CA names in our request and the alert: crypto/tls
			// sends the same alert for every error of VerifyConnection. verifier makes
			// the decision.
			s.config.ClientCAs = s.verifier.roots
			if o.AllowMissingClientAuthUsage {
				s.config.ClientAuth = unverified[o.ClientAuth]
			}
		}
	}
	if o.AllowMissingClientAuthUsage && s.config.ClientAuth == tls.NoClientCert {
		bad.add("allow_missing_client_auth_usage", "has no effect, because client_auth requests no certificate")
	}
	if len(o.ClientSubjectAltNames) > 0 && s.config.ClientAuth == tls.NoClientCert {
		bad.add("client_subject_alt_names", "has no effect, because client_auth requests no certificate")
	}
	if err := bad.err(); err != nil {
		return nil, err
	}
	indexed := new(nameIndex)
	if before != nil {
		indexed = &before.names
	}
	s.names = newNameIndex(o.Certificates, indexed)
	return s, nil
}

// unverified are the modes in which crypto/tls does not verify the client's certificate
// itself: it would insist on clientAuth.
var unverified = map[ClientAuth]tls.ClientAuthType{
	ClientAuthOptional: tls.RequestClientCert,
	ClientAuthRequired: tls.RequireAnyClientCert,
}

// Conn returns the server side of a TLS connection on raw, before its
// handshake. The caller sets deadlines for the handshake. Closing it closes
// raw.
func (s *Server) Conn(raw net.Conn) *tls.Conn { return tls.Server(raw, s.config) }

// certificate implements tls.Config.GetCertificate. If it returns neither a
// certificate nor an error, crypto/tls sends unrecognized_name.
func (s *Server) certificate(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	c := s.choose(hello)
	if c == nil {
		return nil, nil
	}
	if ctx := hello.Context(); ctx != nil {
		if own, ok := ctx.Value(ownCertificateKey{}).(*ownCertificate); ok {
			own.certificate = c
		}
	}
	return &c.tls, nil
}

// choose returns the certificate to present, or nil.
func (s *Server) choose(hello *tls.ClientHelloInfo) *Certificate {
	name := serverName(hello.ServerName)
	var fits, usable *Certificate
	if name != "" {
		s.names.each(name, func(c *Certificate) bool {
			if hello.SupportsCertificate(&c.tls) == nil {
				usable = c
				return false
			}
			if fits == nil {
				fits = c
			}
			return true
		})
	}
	if usable != nil {
		return usable
	}
	if fits != nil { // no certificate is usable for the client; crypto/tls reports the reason
		return fits
	}
	if s.o.RejectUnknownSNI {
		return nil
	}
	return s.fallback(hello)
}

// fallback returns the first certificate. If the client cannot use it (an ECDSA
// certificate and an RSA-only client), fallback returns another certificate for
// the same names.
func (s *Server) fallback(hello *tls.ClientHelloInfo) *Certificate {
	anyName := *hello
	anyName.ServerName = "" // SupportsCertificate would check the name
	for _, c := range s.names.sameNamed {
		if anyName.SupportsCertificate(&c.tls) == nil {
			return c
		}
	}
	return s.o.Certificates[0]
}

func sameNames(a, b *x509.Certificate) bool {
	left, n := altNames(a, maxSANs)
	right, m := altNames(b, maxSANs)
	return n == m && strings.Join(left, "\n") == strings.Join(right, "\n")
}

// serverName returns SNI in normalized form. crypto/tls rejects a trailing dot
// itself.
func serverName(sni string) string { return strings.ToLower(sni) }

// Knows reports whether a client may use the name as SNI, or as the host of a
// request on a connection with another SNI. It is false only with
// RejectUnknownSNI, for a name that is empty or matches no certificate.
func (s *Server) Knows(name string) bool {
	return !s.o.RejectUnknownSNI || s.Presents(name)
}

// Presents reports whether one of the certificates is valid for the name.
func (s *Server) Presents(name string) bool {
	valid := false
	if name != "" {
		s.names.each(strings.ToLower(name), func(*Certificate) bool {
			valid = true
			return false
		})
	}
	return valid
}

// sessionTag marks our entry in a session's Extra.
const sessionTag = "drawbridge sni 1:"

// wrap implements tls.Config.WrapSession: it writes the SNI into the ticket.
func (s *Server) wrap(state tls.ConnectionState, session *tls.SessionState) ([]byte, error) {
	session.Extra = append(session.Extra, []byte(sessionTag+serverName(state.ServerName)))
	return s.tickets.Config().EncryptTicket(state, session)
}

// unwrap implements tls.Config.UnwrapSession. A ticket is valid only under the
// SNI it was issued for (RFC 6066, section 3). Under TLS 1.3 this is also the
// only place to reject an unknown SNI, since a resumption selects no
// certificate.
func (s *Server) unwrap(identity []byte, state tls.ConnectionState) (*tls.SessionState, error) {
	session, err := s.tickets.Config().DecryptTicket(identity, state)
	if session == nil || err != nil {
		return nil, err
	}
	name := serverName(state.ServerName)
	for _, extra := range session.Extra {
		if bytes.Equal(extra, []byte(sessionTag+name)) && s.Knows(name) {
			return session, nil
		}
	}
	return nil, nil // no session: the handshake is full
}

// accept implements tls.Config.VerifyConnection: on every connection, resumed or not,
// the client's certificate must verify against the current trust.
func (s *Server) accept(state tls.ConnectionState) error {
	if done, err := s.uncertified(state); done {
		return err
	}
	anchor, failures := s.verifier.accept(state.PeerCertificates, "")
	if len(failures) > 0 {
		return failures[0]
	}
	s.anchors.Note(anchor, s.o.Time())
	return nil
}

// Admits verifies the client of a live connection again, against the trust of this
// server, which may be newer than the one that made the handshake. It returns why the
// client would be rejected now, or nil. The check does not count as a use of a trust
// anchor.
func (s *Server) Admits(state tls.ConnectionState) error {
	if done, err := s.uncertified(state); done {
		return err
	}
	if failures := s.verifier.verify(state.PeerCertificates, ""); len(failures) > 0 {
		return failures[0]
	}
	return nil
}

// uncertified decides about clients whose certificate is ignored or missing. It
// reports whether it has decided.
func (s *Server) uncertified(state tls.ConnectionState) (done bool, err error) {
	switch {
	case s.o.ClientAuth == ClientAuthNone:
		return true, nil
	case len(state.PeerCertificates) > 0:
		return false, nil
	case s.o.ClientAuth == ClientAuthOptional:
		return true, nil
	}
	return true, errNoClientCertificate
}

// Anchors returns the record of the trust anchors that verified clients. The record
// outlives the Server.
func (s *Server) Anchors() *AnchorLog { return s.anchors }

// Trusts reports whether the Server verifies clients against b.
func (s *Server) Trusts(b *TrustBundle) bool { return slices.Contains(s.verifier.trust, b) }

var errNoClientCertificate = &VerifyError{Reason: ReasonClientCertificateRequired, Detail: "the client presented no certificate"}

// ClassifyAccept is Classify for errors of a Server's connections, where the
// roles are reversed: an alert about a certificate means that the client
// rejected ours, and an expired deadline is the handshake's.
func ClassifyAccept(err error) Reason {
	if err == nil {
		return ""
	}
	if e, ok := errors.AsType[*VerifyError](err); ok {
		return e.Reason
	}
	if timedOut(err) {
		return ReasonHandshakeTimeout
	}
	if alert, ok := remoteAlert(err); ok {
		switch alert {
		case alertUnknownCA:
			return ReasonUnknownCA
		case alertCertificateExpired:
			return ReasonExpired
		case alertCertificateRevoked:
			return ReasonRevoked
		case alertBadCertificate, alertUnsupportedCertificate, alertCertificateUnknown, alertAccessDenied:
			return ReasonBadCertificate
		}
	}
	return Classify(err)
}
