package http2

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/drawbridge-gateway/drawbridge/bridge/l7/message"
	h2 "golang.org/x/net/http2"
)

// ErrUnprocessed reports that the request was not processed: the peer said so,
// or no part of it was sent. So it may be retried on another connection,
// whatever its method. Errors of a ClientStream match it with errors.Is.
var ErrUnprocessed = message.ErrUnprocessed

// ErrUnwanted is returned by Write and End when the peer has sent its whole
// response and does not need the rest of the request (RFC 9113, section 8.1).
// The response is valid.
var ErrUnwanted = errors.New("http2: the server does not need the rest of the request")

// ErrParked is returned by Serve, if Options.Wake is set, when the connection
// has had no stream and received nothing for a while. The connection is still
// open: call Serve again when there is something to read.
var ErrParked = errors.New("http2: connection parked")

var (
	errClosed  = errors.New("http2: connection closed")
	errIdle    = errors.New("http2: connection idle")
	errRetired = errors.New("http2: connection retired")
	errOver    = errors.New("http2: stream closed")
	errRefused = errors.New("http2: the rest of the body was discarded")
)

// An Error says why a stream or a connection ended early.
type Error struct {
	Code h2.ErrCode

	// Remote says that the peer ended it and chose Code.
	Remote bool

	// Connection says that the whole connection ended.
	Connection bool

	// Unprocessed says that the request was not processed: see ErrUnprocessed.
	Unprocessed bool

	// Reason is the fault found by this side, if it ended the stream or
	// connection. It quotes nothing from the peer.
	Reason string

	// Err is the I/O error of the connection, if that ended it.
	Err error
}

func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString("http2: ")
	switch {
	case e.Err != nil:
		fmt.Fprintf(&b, "connection: %v", e.Err)
		return b.String()
	case e.Connection:
		b.WriteString("connection ended")
	default:
		b.WriteString("stream reset")
	}
	if e.Remote {
		b.WriteString(" by the peer")
	}
	fmt.Fprintf(&b, ": %v", e.Code)
	if e.Reason != "" {
		fmt.Fprintf(&b, ": %s", e.Reason)
	}
	return b.String()
}

// Unwrap returns the connection's I/O error.
func (e *Error) Unwrap() error { return e.Err }

// Is matches the errors of package message that say how a request failed.
func (e *Error) Is(target error) bool {
	switch target {
	case message.ErrUnprocessed:
		return e.Unprocessed
	case message.ErrStreamRefused:
		return e.Unprocessed && e.Remote && !e.Connection
	case message.ErrReset:
		return e.Remote || e.Err != nil
	}
	return false
}

// canBeSent reports whether the reason can be sent to the peer.
func (e *Error) canBeSent() bool {
	return e.Err == nil && !e.Remote || e.Err == errIdle || e.Err == errRetired
}

// broken returns the error for a peer that broke a rule of the connection.
func broken(code h2.ErrCode, reason string) *Error {
	return &Error{Code: code, Connection: true, Reason: reason}
}

// malformed returns the error for a malformed message.
func malformed(reason string) *Error { return &Error{Code: h2.ErrCodeProtocol, Reason: reason} }

// codeOf returns the code that resets a stream which ended because of cause.
func codeOf(cause error, server bool) h2.ErrCode {
	var e *Error
	switch {
	case errors.As(cause, &e) && !e.Connection && e.Code != h2.ErrCodeNo &&
		(e.Code == h2.ErrCodeCancel || e.Code == h2.ErrCodeEnhanceYourCalm || e.Code == h2.ErrCodeRefusedStream && e.Unprocessed && server):
		return e.Code // the peer on the other side of the exchange chose this code
	case errors.Is(cause, context.Canceled), errors.Is(cause, context.DeadlineExceeded), errors.Is(cause, os.ErrDeadlineExceeded):
		return h2.ErrCodeCancel
	case server:
		return h2.ErrCodeInternal
	default:
		return h2.ErrCodeCancel
	}
}
