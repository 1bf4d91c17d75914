package certs

import "crypto/x509"

// A Reason names why a connection, a handshake or a check failed. Its text is
// that of the API's enum without its prefix. The zero Reason is no failure.
type Reason string

// Every reason there is.
const (
	ReasonConnectRefused            Reason = "CONNECT_REFUSED"
	ReasonConnectTimeout            Reason = "CONNECT_TIMEOUT"
	ReasonUnreachable               Reason = "UNREACHABLE"
	ReasonDNSFailure                Reason = "DNS_FAILURE"
	ReasonHandshakeTimeout          Reason = "HANDSHAKE_TIMEOUT"
	ReasonNotTLS                    Reason = "NOT_TLS"
	ReasonPeerClosed                Reason = "PEER_CLOSED"
	ReasonUnknownCA                 Reason = "UNKNOWN_CA"
	ReasonExpired                   Reason = "EXPIRED"
	ReasonNotYetValid               Reason = "NOT_YET_VALID"
	ReasonNameMismatch              Reason = "NAME_MISMATCH"
	ReasonDepthExceeded             Reason = "DEPTH_EXCEEDED"
	ReasonWrongKeyUsage             Reason = "WRONG_KEY_USAGE"
	ReasonRevoked                   Reason = "REVOKED"
	ReasonCRLExpired                Reason = "CRL_EXPIRED"
	ReasonPinMismatch               Reason = "PIN_MISMATCH"
	ReasonProtocolVersion           Reason = "PROTOCOL_VERSION"
	ReasonNoCommonCipher            Reason = "NO_COMMON_CIPHER"
	ReasonNoCommonGroup             Reason = "NO_COMMON_GROUP"
	ReasonClientCertificateRequired Reason = "CLIENT_CERTIFICATE_REQUIRED"
	ReasonClientCertificateRejected Reason = "CLIENT_CERTIFICATE_REJECTED"
	ReasonUnrecognizedName          Reason = "UNRECOGNIZED_NAME"
	ReasonALPNMismatch              Reason = "ALPN_MISMATCH"
	ReasonBadCertificate            Reason = "BAD_CERTIFICATE"
	ReasonLocalConfig               Reason = "LOCAL_CONFIG"
	ReasonOther                     Reason = "OTHER"

	// Those of requests and health checks, which no handshake fails for.
	ReasonNoEndpoint      Reason = "NO_ENDPOINT"
	ReasonOverloaded      Reason = "OVERLOADED"
	ReasonCheckFailed     Reason = "CHECK_FAILED"
	ReasonResponseTimeout Reason = "RESPONSE_TIMEOUT"
	ReasonResponseBroken  Reason = "RESPONSE_BROKEN"

	// Those of a connection that already carried a stream of bytes.
	ReasonUpstreamReset     Reason = "UPSTREAM_RESET"
	ReasonUpstreamTruncated Reason = "UPSTREAM_TRUNCATED"
	ReasonUpstreamFailed    Reason = "UPSTREAM_FAILED"
	ReasonClientReset       Reason = "CLIENT_RESET"
	ReasonClientTruncated   Reason = "CLIENT_TRUNCATED"
	ReasonClientFailed      Reason = "CLIENT_FAILED"
)

// A VerifyError says which of our own checks of a peer failed.
type VerifyError struct {
	Reason Reason
	// Detail names the facts: what was presented and what was wanted. It is
	// bounded, and what the peer wrote in it is escaped.
	Detail string
	// Fault is the certificate that stopped the chain, if it is known; else nil.
	Fault *ChainFault
	// Err is what crypto/x509 said, or nil. Its text may hold whatever the
	// peer wrote: show Detail, not Err.
	Err error
}

// Error returns the detail.
func (e *VerifyError) Error() string { return e.Detail }

// Unwrap returns what crypto/x509 said.
func (e *VerifyError) Unwrap() error { return e.Err }

// maxRefused bounds the certificates of a refused chain that are kept.
const maxRefused = 20

// A HandshakeError is what Client.Handshake returns. It carries the reason that
// was found with the knowledge of that handshake, such as whether the peer had
// asked for a client certificate.
type HandshakeError struct {
	Reason Reason
	// Err is the cause. It is never nil.
	Err error
	// Refused is the chain that was refused, the leaf first, if the peer
	// presented one and it was: at most maxRefused certificates, which nobody
	// vouches for.
	Refused []*x509.Certificate
	// Narrow reports that the peer refused an offer without those key-exchange
	// groups that it used not to choose. The next handshake offers all that are
	// allowed, and so is worth trying at once, on another connection.
	Narrow bool
}

// Error returns the cause's text, bounded and escaped.
func (e *HandshakeError) Error() string {
	return "tls handshake: " + ErrorText(e.Err)
}

// Unwrap returns the cause.
func (e *HandshakeError) Unwrap() error { return e.Err }
