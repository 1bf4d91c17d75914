package starttls

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"

	"github.com/drawbridge-gateway/drawbridge/certs"
)

// maxQuoted bounds how much an error quotes of the peer's bytes.
const maxQuoted = 160

// quote returns the peer's bytes in quotes, escaped and bounded.
func quote[T string | []byte](received T) string {
	if more := len(received) - maxQuoted; more > 0 {
		return fmt.Sprintf("%s… (%d more bytes)", strconv.QuoteToASCII(string(received[:maxQuoted])), more)
	}
	return strconv.QuoteToASCII(string(received))
}

// refused returns the error for a peer that does not start TLS.
func refused(format string, args ...any) error {
	return &certs.VerifyError{Reason: certs.ReasonSTARTTLSRefused, Detail: fmt.Sprintf(format, args...)}
}

// injected returns the error for bytes that follow an answer. Anyone on the path
// could have inserted them.
func injected(answer string, extra []byte) error {
	return &certs.VerifyError{
		Reason: certs.ReasonSTARTTLSInjection,
		Detail: fmt.Sprintf("the server sent more than %s: %s", answer, quote(extra)),
	}
}

// broken returns the error of a connection that failed while the dialect
// waited for the peer.
func broken(waiting string, err error) error {
	reason := certs.Classify(err)
	switch {
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		reason = certs.ReasonPeerClosed
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded):
		reason = certs.ReasonHandshakeTimeout
	case errors.Is(err, context.Canceled):
		reason = certs.ReasonOther // the caller ended the exchange
	}
	return &certs.HandshakeError{Reason: reason, Err: fmt.Errorf("waiting for %s: %w", waiting, err)}
}

// Explain refines the error of a TLS handshake after an upgrade: plaintext that
// follows the peer's agreement to start TLS counts as injected.
func (p Protocol) Explain(err error) error {
	if p == None || certs.Classify(err) != certs.ReasonNotTLS {
		return err
	}
	return &certs.VerifyError{
		Reason: certs.ReasonSTARTTLSInjection,
		Detail: "the server sent plaintext after it had agreed to start TLS: " + certs.ErrorText(err),
		Err:    err,
	}
}
