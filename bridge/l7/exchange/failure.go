package exchange

import (
	"errors"
	"io"
	"syscall"

	"github.com/drawbridge-gateway/drawbridge/bridge/l7/http1"
	"github.com/drawbridge-gateway/drawbridge/bridge/l7/message"
	"github.com/drawbridge-gateway/drawbridge/bridge/l7/wire"
	"github.com/drawbridge-gateway/drawbridge/bridge/upstream"
	"github.com/drawbridge-gateway/drawbridge/certs"
)

// unwritable reports whether an error says that the back's version of HTTP cannot
// express the request, so that no part of it was sent.
func unwritable(err error) bool {
	var e *http1.WriteError
	return errors.As(err, &e) || errors.Is(err, message.ErrHeadTooLarge) ||
		errors.Is(err, message.ErrNoUpgrade) || errors.Is(err, message.ErrNoWebSocket) || errors.Is(err, message.ErrBadHandshake)
}

// isUnsent reports whether no part of a request can have reached an endpoint,
// so that another endpoint may be tried.
func isUnsent(err error) bool {
	var dial *upstream.DialError
	return errors.As(err, &dial) || err == upstream.ErrFull || errors.Is(err, message.ErrNoStreams)
}

// isReset reports whether a try failed because its connection or stream ended.
func isReset(err error) bool {
	var malformed *http1.Error
	if errors.Is(err, message.ErrReset) {
		return true
	} else if errors.As(err, &malformed) {
		return false
	}
	return errors.Is(err, wire.ErrNoResponse) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) ||
		errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
}

// isRefusal reports whether a server refused one stream rather than all further
// streams.
func isRefusal(err error) bool { return errors.Is(err, message.ErrStreamRefused) }

// reasonOf returns the reason of a request's failure.
func reasonOf(err error) certs.Reason {
	if errors.Is(err, errDeadline) || errors.Is(err, errTooLong) || errors.Is(err, errTryDeadline) || errors.Is(err, errCallDeadline) {
		return certs.ReasonResponseTimeout
	}
	reason := upstream.ReasonOf(err)
	if isUnsent(err) {
		return reason
	}
	// A connection existed, so the reasons for a failed dial do not apply, except
	// for TLS: the peer can still reject the gateway with an alert.
	switch reason {
	case certs.ReasonPeerClosed, certs.ReasonNotTLS, certs.ReasonOther:
		return certs.ReasonResponseBroken
	case certs.ReasonConnectTimeout, certs.ReasonHandshakeTimeout:
		return certs.ReasonResponseTimeout
	case certs.ReasonNoCommonCipher:
		// The peer sent the alert handshake_failure in a renegotiation that requested
		// a client certificate. The cipher suite had been negotiated before.
		return certs.ReasonClientCertificateRequired
	}
	return reason
}
