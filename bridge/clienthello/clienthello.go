// Package clienthello parses the first message of a TLS connection, for
// callers that need the requested name before they choose a server.
//
// It does no I/O and consumes nothing: the caller owns the bytes and must
// still pass them to the TLS server. A Scanner must be used by one goroutine
// at a time.
package clienthello

import (
	"errors"
	"fmt"
	"strings"

	"golang.org/x/crypto/cryptobyte"
)

// MaxMessage is the maximum length of a ClientHello, in bytes: the same as in
// crypto/tls.
const MaxMessage = 64 << 10

// MaxStream is the maximum size of a ClientHello on the wire. Otherwise a
// client that puts one byte in each record would occupy six times MaxMessage.
const MaxStream = 128 << 10

var (
	// ErrNotTLS reports a stream that does not begin with TLS.
	ErrNotTLS = errors.New("the connection does not begin with a TLS handshake")

	// ErrMalformed reports an invalid ClientHello.
	ErrMalformed = errors.New("malformed ClientHello")

	// ErrTrailingDot reports a server name that ends with a dot, which RFC 6066,
	// section 3, forbids. It is an ErrMalformed.
	ErrTrailingDot = fmt.Errorf("%w: a server name with a trailing dot", ErrMalformed)

	errTooLong = fmt.Errorf("%w: it is too long", ErrMalformed)
)

// A Hello holds the parsed fields of a ClientHello.
type Hello struct {
	// ServerName is the host name of the server_name extension (RFC 6066, section
	// 3), as sent, or "". Its syntax is not checked.
	ServerName string
}

// A Scanner finds the ClientHello in a stream of pieces of any size, in any
// number of records. The zero value is at the beginning of a stream.
type Scanner struct {
	header  [recordHeader]byte // the current record's header
	n       int                // bytes of header received
	left    int                // bytes of the record still missing
	seen    int                // bytes of the stream
	message []byte             // the handshake message, including its header
}

const (
	recordHeader    = 5
	messageHeader   = 4
	maxRecord       = 16 << 10 // RFC 8446, section 5.1
	typeHandshake   = 22
	typeClientHello = 1
)

// Feed processes the next bytes of the stream. It reports true once the
// message is complete; then call Hello, and do not call Feed again. Its errors
// are ErrNotTLS and ErrMalformed, after which the stream is unusable.
func (s *Scanner) Feed(p []byte) (whole bool, err error) {
	if s.seen += len(p); s.seen-len(p) > MaxStream {
		return false, errTooLong
	}
	for len(p) > 0 {
		if s.left == 0 {
			n := copy(s.header[s.n:], p)
			s.n, p = s.n+n, p[n:]
			if err := s.checkHeader(); err != nil || s.n < recordHeader {
				return false, err
			}
			s.n, s.left = 0, int(s.header[3])<<8|int(s.header[4])
			continue
		}
		n := min(s.left, len(p))
		s.message = append(s.message, p[:n]...)
		s.left, p = s.left-n, p[n:]
		if whole, err := s.checkMessage(); whole || err != nil {
			return whole, err
		}
	}
	return false, nil
}

// checkHeader checks the received part of a record header, so that the first
// byte reveals a client that does not speak TLS.
func (s *Scanner) checkHeader() error {
	first := len(s.message) == 0
	switch {
	case s.n > 0 && s.header[0] != typeHandshake, s.n > 1 && s.header[1] != 3:
		if first {
			return ErrNotTLS
		}
		return fmt.Errorf("%w: another record in the middle of it", ErrMalformed)
	case s.n == recordHeader:
		if length := int(s.header[3])<<8 | int(s.header[4]); length == 0 || length > maxRecord {
			return fmt.Errorf("%w: a record of %d bytes", ErrMalformed, length)
		}
	}
	return nil
}

// checkMessage reports whether the message is complete.
func (s *Scanner) checkMessage() (bool, error) {
	if s.message[0] != typeClientHello {
		return false, fmt.Errorf("%w: a handshake message of type %d", ErrMalformed, s.message[0])
	}
	if len(s.message) < messageHeader {
		return false, nil
	}
	length := int(s.message[1])<<16 | int(s.message[2])<<8 | int(s.message[3])
	switch left := messageHeader + length - len(s.message); {
	case length > MaxMessage:
		return false, errTooLong
	case left < 0 || left == 0 && s.left > 0:
		// A server may answer only a complete flight (RFC 8446, section 5.1): no
		// endpoint would process data after the message.
		return false, fmt.Errorf("%w: its record contains further data", ErrMalformed)
	default:
		return left == 0, nil
	}
}

// Hello parses the message that Feed completed.
func (s *Scanner) Hello() (Hello, error) { return parse(s.message[messageHeader:]) }

const extensionServerName = 0

// parse parses a ClientHello (RFC 8446, section 4.1.2). It is as strict about
// the server name as crypto/tls, which terminates other connections of the same
// listener: otherwise the two parsers could read one message as different
// names.
func parse(message []byte) (Hello, error) {
	var h Hello
	in := cryptobyte.String(message)
	var sessionID, suites, compressions, extensions cryptobyte.String
	if !in.Skip(2+32) || !in.ReadUint8LengthPrefixed(&sessionID) || len(sessionID) > 32 ||
		!in.ReadUint16LengthPrefixed(&suites) || len(suites) == 0 || len(suites)%2 != 0 ||
		!in.ReadUint8LengthPrefixed(&compressions) || len(compressions) == 0 {
		return h, ErrMalformed
	}
	if in.Empty() {
		return h, nil // TLS 1.2 and earlier allow no extensions
	}
	if !in.ReadUint16LengthPrefixed(&extensions) || !in.Empty() {
		return h, ErrMalformed
	}
	seen := make(map[uint16]bool)
	for !extensions.Empty() {
		var kind uint16
		var data cryptobyte.String
		if !extensions.ReadUint16(&kind) || !extensions.ReadUint16LengthPrefixed(&data) {
			return h, ErrMalformed
		}
		if seen[kind] {
			return h, fmt.Errorf("%w: extension %d occurs twice", ErrMalformed, kind)
		}
		seen[kind] = true
		if kind == extensionServerName {
			var err error
			if h.ServerName, err = parseServerName(data); err != nil {
				return h, err
			}
		}
	}
	return h, nil
}

func parseServerName(data cryptobyte.String) (host string, err error) {
	var names cryptobyte.String
	if !data.ReadUint16LengthPrefixed(&names) || names.Empty() || !data.Empty() {
		return "", fmt.Errorf("%w: in server_name", ErrMalformed)
	}
	for !names.Empty() {
		var kind uint8
		var name cryptobyte.String
		if !names.ReadUint8(&kind) || !names.ReadUint16LengthPrefixed(&name) || name.Empty() {
			return "", fmt.Errorf("%w: in server_name", ErrMalformed)
		}
		switch {
		case kind != 0: // host_name (0) is the only defined kind
		case host != "":
			return "", fmt.Errorf("%w: more than one server name", ErrMalformed)
		case strings.HasSuffix(string(name), "."):
			return "", ErrTrailingDot
		default:
			host = string(name)
		}
	}
	return host, nil
}
