package policy

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"sync"

	"github.com/drawbridge-gateway/drawbridge/bridge/l7/message"
	"github.com/drawbridge-gateway/drawbridge/bridge/route"
	"github.com/drawbridge-gateway/drawbridge/certs"
)

// A Session is what a client's TLS handshake negotiated. The zero Session is
// plaintext.
type Session struct {
	serverName     string // SNI, as the client sent it; "" if it sent none
	version, suite uint16
	certificate    *clientCertificate // the verified certificate, or nil
}

// NewSession returns the session of a completed handshake.
func NewSession(state tls.ConnectionState) Session {
	s := Session{serverName: state.ServerName, version: state.Version, suite: state.CipherSuite}
	// A listener verifies every certificate that it requests, including on resumed
	// sessions, so this certificate was verified.
	if len(state.PeerCertificates) > 0 {
		s.certificate = &clientCertificate{leaf: state.PeerCertificates[0]}
	}
	return s
}

// Identity returns the identity in the client's certificate, or the zero Identity
// without a certificate.
func (s *Session) Identity() certs.Identity { return s.certificate.identity() }

// A clientCertificate is a client's verified certificate. The fields for
// upstreams are built once, when the connection's first request needs them.
type clientCertificate struct {
	leaf *x509.Certificate

	identifying, encoding, matching sync.Once
	id                              certs.Identity
	identityFields                  message.Fields
	encoded                         string
	client                          *route.Client
}

// Client returns the parts of the client's certificate that routes match, or nil without
// one.
func (s *Session) Client() *route.Client {
	c := s.certificate
	if c == nil {
		return nil
	}
	c.matching.Do(func() { c.client = route.NewClient(c.leaf) })
	return c.client
}

// identity returns the identity in the certificate. c may be nil.
func (c *clientCertificate) identity() certs.Identity {
	if c == nil {
		return certs.Identity{}
	}
	c.identifying.Do(func() {
		c.id = certs.Identify(c.leaf)
		for _, f := range []message.Field{
			{Name: "X-Client-Cert-Subject", Value: c.id.Subject}, {Name: "X-Client-Cert-San", Value: c.id.SubjectAltNames},
			{Name: "X-Client-Cert-Serial", Value: c.id.Serial}, {Name: "X-Client-Cert-Fingerprint", Value: c.id.SHA256Fingerprint},
		} {
			if f.Value != "" && message.IsValue(f.Value) {
				c.identityFields = append(c.identityFields, f)
			}
		}
	})
	return c.id
}

// maxEncoded bounds a forwarded certificate, in DER: some servers accept no
// larger header.
const maxEncoded = 16 << 10

// encodedField returns the certificate as a byte sequence of a structured field
// (RFC 9440, section 2.2); "" if it is too large.
func (c *clientCertificate) encodedField() string {
	c.encoding.Do(func() {
		if len(c.leaf.Raw) <= maxEncoded {
			c.encoded = ":" + base64.StdEncoding.EncodeToString(c.leaf.Raw) + ":"
		}
	})
	return c.encoded
}

// ClientCertificateFields chooses the fields that tell an upstream about the
// client's certificate, if there is one and it was verified.
type ClientCertificateFields int

// The zero ClientCertificateFields is SendNoCertificate.
const (
	SendNoCertificate ClientCertificateFields = iota
	SendIdentity                              // X-Client-Cert-Subject, -San, -Serial and -Fingerprint
	SendCertificate                           // Client-Cert (RFC 9440)
)

// SetCertificate adds the fields that tell the upstream about the client's
// certificate.
func (f *Facts) SetCertificate(how ClientCertificateFields) {
	c := f.Connection.Session.certificate
	if c == nil {
		return
	}
	switch how {
	case SendIdentity:
		c.identity()
		f.Request.Fields = append(f.Request.Fields, c.identityFields...)
	case SendCertificate:
		if value := c.encodedField(); value != "" {
			f.Request.Fields.Add("Client-Cert", value)
		}
	}
}
