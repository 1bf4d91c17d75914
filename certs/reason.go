package certs

import "crypto/x509"

// A Reason names why a connection, a handshake or a check failed. Its text is
// the API's enum value without its prefix. The zero Reason means no failure.
type Reason string

// All reasons.
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

	// Reasons of requests and health checks; no handshake fails with these.
	ReasonNoEndpoint      Reason = "NO_ENDPOINT"
	ReasonOverloaded      Reason = "OVERLOADED"
	ReasonCheckFailed     Reason = "CHECK_FAILED"
	ReasonResponseTimeout Reason = "RESPONSE_TIMEOUT"
	ReasonResponseBroken  Reason = "RESPONSE_BROKEN"

	// Reasons of a connection that already carried stream data.
	ReasonUpstreamReset     Reason = "UPSTREAM_RESET"
	ReasonUpstreamTruncated Reason = "UPSTREAM_TRUNCATED"
	ReasonUpstreamFailed    Reason = "UPSTREAM_FAILED"
	ReasonClientReset       Reason = "CLIENT_RESET"
	ReasonClientTruncated   Reason = "CLIENT_TRUNCATED"
	ReasonClientFailed      Reason = "CLIENT_FAILED"

	// The server's key or signature is of a kind that the client does not support.
	ReasonNoCommonSignature Reason = "NO_COMMON_SIGNATURE"

	// The server requested a new handshake on a TLS 1.2 connection in use.
	ReasonRenegotiationRequested Reason = "RENEGOTIATION_REQUESTED"

	// ReasonOwnCertificateExpired ends a connection on which we presented a
	// certificate that has expired since.
	ReasonOwnCertificateExpired Reason = "OWN_CERTIFICATE_EXPIRED"

	// Reasons of protocols that begin in plaintext and upgrade to TLS.
	ReasonSTARTTLSRefused   Reason = "STARTTLS_REFUSED"
	ReasonSTARTTLSInjection Reason = "STARTTLS_INJECTION"

	// Failures of an egress proxy, not of the server behind it.
	ReasonEgressProxyFailed  Reason = "EGRESS_PROXY_FAILED"
	ReasonEgressProxyRefused Reason = "EGRESS_PROXY_REFUSED"
)

// A VerifyError reports a failure of one of our own checks of a peer.
type VerifyError struct {
	Reason Reason
	// Detail states what was presented and what was expected. It is bounded, and
	// text from the peer is escaped.
	Detail string
	// Fault is the certificate that stopped the chain, or nil if unknown.
	Fault *ChainFault
	// Err is the error of crypto/x509, or nil. It may contain arbitrary text from
	// the peer: show Detail, not Err.
	Err error
}

// Error returns the detail.
func (e *VerifyError) Error() string { return e.Detail }

// Unwrap returns the error of crypto/x509.
func (e *VerifyError) Unwrap() error { return e.Err }

// maxRefused bounds the certificates kept of a rejected chain.
const maxRefused = 20

// A HandshakeError is the error of Client.Handshake. It carries a reason that
// takes the state of the handshake into account, such as whether the peer
// requested a client certificate.
type HandshakeError struct {
	Reason Reason
	// Err is the cause. It is never nil.
	Err error
	// Refused is the rejected chain, leaf first, if the peer presented one and
	// verification failed. It has at most maxRefused certificates, all unverified.
	Refused []*x509.Certificate
	// Narrow reports that the peer rejected an offer without some of our
	// key-exchange groups. The offer left out the groups that the peer had passed
	// over before. The next handshake offers all allowed groups, so an immediate
	// retry on another connection is worthwhile.
	Narrow bool
}

// Error returns the cause's text, bounded and escaped.
func (e *HandshakeError) Error() string {
	text := "tls handshake: " + ErrorText(e.Err)
	if alert, ok := remoteAlert(e.Err); ok && alert == alertHandshakeFailure && (e.Reason == ReasonNoCommonCipher || e.Reason == ReasonNoCommonGroup) {
		text += " (the alert does not say what is missing: a cipher suite, a group or a kind of key; probe the upstream to find out)"
	}
	return text
}

// Unwrap returns the cause.
func (e *HandshakeError) Unwrap() error { return e.Err }
