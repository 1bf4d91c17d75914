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

// ErrUnprocessed reports that a request was not acted upon, so that it may be
// sent again, on another connection, whatever its method: the peer said so, or
// nothing of it was sent. Errors of a ClientStream match it by errors.Is.
var ErrUnprocessed = message.ErrUnprocessed

// ErrUnwanted is what Write and End return when the peer, having sent its whole
// response, said that it needs no more of the request (RFC 9113, section 8.1).
// The response is good.
var ErrUnwanted = errors.New("http2: the rest of the request is not wanted")

// ErrParked is what Serve returns, if Options.Wake allows it, when nothing goes on:
// there is no stream, and nothing has come for a while. The connection is not at
// its end: Serve is to be called again when there is something to read.
var ErrParked = errors.New("http2: nothing goes on")

var (
	errClosed  = errors.New("http2: connection closed")
	errIdle    = errors.New("http2: connection idle")
	errRetired = errors.New("http2: connection retired")
	errOver    = errors.New("http2: the stream is over")
	errRefused = errors.New("http2: the rest of the body was refused")
)

// An Error says why a stream or a connection ended before its time.
type Error struct {
	Code h2.ErrCode

	// Remote tells that the peer ended it and chose the code.
	Remote bool

	// Connection tells that the whole connection is at its end.
	Connection bool

	// Unprocessed tells that the request was not acted upon: see
	// ErrUnprocessed.
	Unprocessed bool

	// Reason says, if this side ended it, what was wrong. It quotes nothing
	// that the peer sent.
	Reason string

	// Err is the failure of the connection's I/O, if that is what ended it.
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

// Unwrap returns the failure of the connection.
func (e *Error) Unwrap() error { return e.Err }

// Is makes the error match those of package message that say how a request failed.
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

// mayBeTold reports whether a peer can be sent why the connection ended.
func (e *Error) mayBeTold() bool {
	return e.Err == nil && !e.Remote || e.Err == errIdle || e.Err == errRetired
}

// broken returns the error of a peer that broke the rules of the connection.
func broken(code h2.ErrCode, reason string) *Error {
	return &Error{Code: code, Connection: true, Reason: reason}
}

// malformed returns the error of a stream whose message is not one.
func malformed(reason string) *Error { return &Error{Code: h2.ErrCodeProtocol, Reason: reason} }

// codeOf returns the code with which a stream is reset that ended by cause.
func codeOf(cause error, server bool) h2.ErrCode {
	var e *Error
	switch {
	case errors.As(cause, &e) && !e.Connection && e.Code != h2.ErrCodeNo &&
		(e.Code == h2.ErrCodeCancel || e.Code == h2.ErrCodeEnhanceYourCalm || e.Code == h2.ErrCodeRefusedStream && e.Unprocessed && server):
		return e.Code // the other side's peer said it of the whole exchange
	case errors.Is(cause, context.Canceled), errors.Is(cause, context.DeadlineExceeded), errors.Is(cause, os.ErrDeadlineExceeded):
		return h2.ErrCodeCancel
	case server:
		return h2.ErrCodeInternal
	default:
		return h2.ErrCodeCancel
	}
}
