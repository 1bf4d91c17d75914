package certs

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"io/fs"
	"net"
	"os"
	"reflect"
	"strings"
	"syscall"
)

// Classify returns the reason for an error of a dial, of Client.Handshake, or
// of the first read on the TLS connection, where TLS 1.3 servers report a
// rejected client certificate. A nil error has no reason.
//
// A deadline that expires in Client.Handshake gives HANDSHAKE_TIMEOUT. Any
// other gives CONNECT_TIMEOUT, unless it ended a read or write.
func Classify(err error) Reason {
	if err == nil {
		return ""
	}
	if e, ok := errors.AsType[*VerifyError](err); ok {
		return e.Reason
	}
	if e, ok := errors.AsType[*HandshakeError](err); ok {
		return e.Reason
	}
	if is[Faults](err) || is[*KeyTypeError](err) {
		return ReasonLocalConfig
	}
	if _, ok := errors.AsType[*net.DNSError](err); ok {
		return ReasonDNSFailure // before timeouts: a resolver can time out too
	}
	if alert, ok := remoteAlert(err); ok {
		return alertReason(alert)
	}
	if alert, ok := alertOf(err, "local error"); ok && alert == alertNoRenegotiation {
		return ReasonRenegotiationRequested // crypto/tls fails with this error after a HelloRequest
	}
	if reason := certificateReason(err); reason != "" {
		return reason
	}
	if e, ok := errors.AsType[tls.RecordHeaderError](err); ok {
		if strings.Contains(e.Msg, "SSLv2") {
			return ReasonProtocolVersion
		}
		return ReasonNotTLS
	}
	if reason := networkReason(err); reason != "" {
		return reason
	}
	return textReason(err)
}

func certificateReason(err error) Reason {
	if e, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return verifyReason(e.Err)
	}
	for _, is := range []func(error) bool{
		is[x509.CertificateInvalidError], is[x509.UnknownAuthorityError], is[x509.HostnameError],
		is[x509.SystemRootsError], is[x509.ConstraintViolationError], is[x509.UnhandledCriticalExtension],
		is[x509.InsecureAlgorithmError],
	} {
		if is(err) {
			return verifyReason(err)
		}
	}
	return ""
}

func is[E error](err error) bool {
	_, ok := errors.AsType[E](err)
	return ok
}

// timedOut reports whether the error is an expired deadline.
func timedOut(err error) bool {
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, os.ErrDeadlineExceeded) {
		return true
	}
	e, ok := errors.AsType[net.Error](err)
	return ok && e.Timeout()
}

func networkReason(err error) Reason {
	op, isOp := errors.AsType[*net.OpError](err)
	dialing := !isOp || op.Op == "dial"
	if errno, ok := errors.AsType[syscall.Errno](err); ok {
		switch errno {
		case syscall.ECONNREFUSED:
			return ReasonConnectRefused
		case syscall.EHOSTUNREACH, syscall.ENETUNREACH, syscall.EHOSTDOWN, syscall.ENETDOWN, syscall.EADDRNOTAVAIL:
			return ReasonUnreachable
		case syscall.ECONNRESET, syscall.EPIPE, syscall.ECONNABORTED:
			return ReasonPeerClosed
		case syscall.EMFILE, syscall.ENFILE, syscall.EACCES, syscall.EPERM, syscall.EAFNOSUPPORT, syscall.EINVAL:
			return ReasonLocalConfig
		}
	}
	switch {
	case dialing && errors.Is(err, fs.ErrNotExist): // the unix socket does not exist
		return ReasonConnectRefused
	case timedOut(err) && dialing:
		return ReasonConnectTimeout
	case timedOut(err):
		return ReasonHandshakeTimeout
	case is[*net.AddrError](err), is[net.InvalidAddrError](err), is[net.UnknownNetworkError](err), is[*net.ParseError](err):
		return ReasonLocalConfig
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return ReasonPeerClosed
	}
	return ""
}

// Alert numbers (RFC 8446, section 6) that Classify distinguishes.
const (
	alertHandshakeFailure       = 40
	alertBadCertificate         = 42
	alertUnsupportedCertificate = 43
	alertCertificateRevoked     = 44
	alertCertificateExpired     = 45
	alertCertificateUnknown     = 46
	alertUnknownCA              = 48
	alertAccessDenied           = 49
	alertProtocolVersion        = 70
	alertInsufficientSecurity   = 71
	alertNoRenegotiation        = 100
	alertUnrecognizedName       = 112
	alertCertificateRequired    = 116
	alertNoApplicationProtocol  = 120
)

// remoteAlert returns the alert that the peer sent. Its type in crypto/tls is
// an unexported number (go.dev/issue/35234), marked with the operation "remote
// error".
func remoteAlert(err error) (uint8, bool) {
	return alertOf(err, "remote error")
}

// IsAlert reports whether err is an alert that the peer sent.
func IsAlert(err error) bool {
	op, ok := errors.AsType[*net.OpError](err)
	return ok && op.Op == "remote error"
}

// alertOf returns the alert in an error of an operation.
func alertOf(err error, operation string) (uint8, bool) {
	op, ok := errors.AsType[*net.OpError](err)
	if !ok || op.Op != operation || op.Err == nil {
		return 0, false
	}
	if v := reflect.ValueOf(op.Err); v.Kind() == reflect.Uint8 {
		return uint8(v.Uint()), true
	}
	return 0, false
}

func isCertificateAlert(alert uint8) bool {
	switch alert {
	case alertBadCertificate, alertUnsupportedCertificate, alertCertificateRevoked, alertCertificateExpired,
		alertCertificateUnknown, alertUnknownCA, alertAccessDenied:
		return true
	}
	return false
}

// alertReason returns a client's reason for an alert: an alert about a
// certificate concerns our own.
func alertReason(alert uint8) Reason {
	switch {
	case isCertificateAlert(alert):
		return ReasonClientCertificateRejected
	case alert == alertCertificateRequired:
		return ReasonClientCertificateRequired
	case alert == alertHandshakeFailure, alert == alertInsufficientSecurity:
		return ReasonNoCommonCipher
	case alert == alertProtocolVersion:
		return ReasonProtocolVersion
	case alert == alertUnrecognizedName:
		return ReasonUnrecognizedName
	case alert == alertNoApplicationProtocol:
		return ReasonALPNMismatch
	}
	return ReasonOther
}

// texts are the crypto/tls errors that have no type. The tests provoke each
// one that a peer can cause, so that new wording in a new Go release fails a
// test.
var texts = []struct {
	part   string
	reason Reason
}{
	{"server selected unsupported protocol version", ReasonProtocolVersion},
	{"client offered only unsupported versions", ReasonProtocolVersion},
	{errRenegotiation.Error(), ReasonRenegotiationRequested},
	{"inappropriate protocol fallback", ReasonProtocolVersion},
	{"no cipher suite supported by both", ReasonNoCommonCipher},
	{"server chose an unconfigured cipher suite", ReasonNoCommonCipher},
	{"no key exchanges supported by both", ReasonNoCommonGroup},
	{"no supported elliptic curves", ReasonNoCommonGroup},
	{"server selected unsupported group", ReasonNoCommonGroup},
	{"server selected unsupported curve", ReasonNoCommonGroup},
	{"server selected unoffered curve", ReasonNoCommonGroup},
	{"client didn't provide a certificate", ReasonClientCertificateRequired},
	{"peer doesn't support any of the certificate's signature algorithms", ReasonNoCommonSignature}, // only at a Server: see checkKeyType
	{"no certificates configured", ReasonUnrecognizedName},
	{"unsupported application protocols", ReasonALPNMismatch},
	{"unadvertised ALPN protocol", ReasonALPNMismatch},
	{"unrequested ALPN extension", ReasonALPNMismatch},
	{"failed to parse certificate from server", ReasonBadCertificate},
	{"failed to parse client certificate", ReasonBadCertificate},
	{"sent certificate containing RSA key larger", ReasonBadCertificate},
	{"exceeds maximum of 262144 bytes", ReasonBadCertificate}, // the limit of a Certificate message
	{"unsupported type of public key", ReasonBadCertificate},
	{"unsupported public key of type", ReasonBadCertificate},
	{"invalid signature by the", ReasonBadCertificate},
	{"incorrect key type for selected ciphersuite", ReasonBadCertificate},
	{"used with invalid signature algorithm", ReasonBadCertificate},
}

func textReason(err error) Reason {
	text := err.Error()
	if !strings.Contains(text, "tls: ") {
		return ReasonOther
	}
	for _, t := range texts {
		if strings.Contains(text, t.part) {
			return t.reason
		}
	}
	return ReasonOther
}
