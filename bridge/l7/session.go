package l7

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"sync"

	"github.com/drawbridge-gateway/drawbridge/bridge/l7/message"
	"github.com/drawbridge-gateway/drawbridge/certs"
)

// A session is what a client's TLS came to. The zero session is plaintext's.
type session struct {
	serverName     string // SNI, as the client sent it; "" if it sent none
	version, suite uint16
	certificate    *clientCertificate // nil: none that was verified
}

// newSession returns the session of a handshake that is over.
func newSession(state tls.ConnectionState) session {
	s := session{serverName: state.ServerName, version: state.Version, suite: state.CipherSuite}
	// A listener asks for no certificate that it does not verify, on resumed
	// sessions too, so that one that is there is good.
	if len(state.PeerCertificates) > 0 {
		s.certificate = &clientCertificate{leaf: state.PeerCertificates[0]}
	}
	return s
}

// A clientCertificate is a client's verified certificate. What upstreams are told
// of it is made once, when the first request of the connection needs it.
type clientCertificate struct {
	leaf *x509.Certificate

	identifying, encoding sync.Once
	id                    certs.Identity
	identityFields        message.Fields
	encoded               string
}

// identity returns what the certificate says of its holder; of none, nothing.
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

// maxEncoded bounds a certificate, in DER, that is passed on: there are servers
// that take no larger header.
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

// ClientCertificateFields is a choice of fields that tell an upstream of the
// client's certificate, if there is one and it was verified.
type ClientCertificateFields int

// The zero ClientCertificateFields is TellNoCertificate.
const (
	TellNoCertificate ClientCertificateFields = iota
	TellIdentity                              // X-Client-Cert-Subject, -San, -Serial and -Fingerprint
	TellCertificate                           // Client-Cert (RFC 9440)
)

// setCertificate adds what the upstream is told of the client's certificate.
func (x *exchange) setCertificate() {
	c := x.conn.session.certificate
	if c == nil {
		return
	}
	switch x.table.ClientCertificate {
	case TellIdentity:
		c.identity()
		x.request.Fields = append(x.request.Fields, c.identityFields...)
	case TellCertificate:
		if value := c.encodedField(); value != "" {
			x.request.Fields.Add("Client-Cert", value)
		}
	}
}
