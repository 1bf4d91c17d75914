package proxyproto

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"

	pires "github.com/pires/go-proxyproto"
)

// MaxHeader is the length of the longest accepted header. Version 1 has at most
// 107 bytes. In version 2, most of the length is for extensions, which are
// skipped.
const MaxHeader = 4096

const (
	maxV1 = 107
	minV1 = len("PROXY UNKNOWN\r\n")
	minV2 = 16 // a header without addresses
)

var (
	// ErrMissing reports a connection that does not begin with a header.
	ErrMissing = errors.New("the connection does not begin with a PROXY protocol header")

	// ErrMalformed reports an invalid or overlong header.
	ErrMalformed = errors.New("the PROXY protocol header is malformed")

	errTooLong  = fmt.Errorf("%w: it is too long", ErrMalformed)
	errLength   = fmt.Errorf("%w: it is shorter than its length field", ErrMalformed)
	errDatagram = fmt.Errorf("%w: it is for a datagram", ErrMalformed)
)

// An Announced holds the addresses of a header.
type Announced struct {
	// Source is the client's address and Destination the address that it connected
	// to. Both are nil if the header announces no addresses, because the sender
	// connects for itself (LOCAL) or does not know the client (UNKNOWN). Then the
	// addresses of the connection count.
	Source, Destination net.Addr
}

// Read reads the header at the beginning of r, and not a byte more. The caller
// bounds the time. After an error r is unusable, because its position is
// undefined.
func Read(r io.Reader) (Announced, error) {
	// Every header of either version has at least this length.
	b := make([]byte, minV1, 2*maxV1)
	if n, err := io.ReadFull(r, b); err != nil {
		// The received bytes show whether the stream begins with a header at all.
		if !begins(b[:n]) {
			err = ErrMissing
		}
		return Announced{}, err
	}
	var err error
	switch {
	case bytes.HasPrefix(b, pires.SIGV2):
		b, err = readV2(r, b)
	case bytes.HasPrefix(b, pires.SIGV1):
		b, err = readV1(r, b)
	default:
		err = ErrMissing
	}
	if err != nil {
		return Announced{}, err
	}
	return parse(b)
}

// begins reports whether b may be the beginning of a header.
func begins(b []byte) bool {
	for _, signature := range [][]byte{pires.SIGV1, pires.SIGV2} {
		n := min(len(b), len(signature))
		if bytes.Equal(b[:n], signature[:n]) {
			return true
		}
	}
	return false
}

// readV1 reads to the end of the line, byte by byte, because the bytes after
// it belong to the caller.
func readV1(r io.Reader, b []byte) ([]byte, error) {
	for !bytes.HasSuffix(b, []byte("\r\n")) {
		if len(b) == maxV1 {
			return nil, errTooLong
		}
		n := len(b)
		b = append(b, 0)
		if _, err := io.ReadFull(r, b[n:]); err != nil {
			return nil, err
		}
	}
	return b, nil
}

// readV2 reads to the end of the header. The header contains its length.
func readV2(r io.Reader, b []byte) ([]byte, error) {
	b = append(b, 0)
	if _, err := io.ReadFull(r, b[minV2-1:]); err != nil {
		return nil, err
	}
	length := int(binary.BigEndian.Uint16(b[minV2-2:]))
	if minV2+length > MaxHeader {
		return nil, errTooLong
	}
	b = append(b, make([]byte, length)...)
	_, err := io.ReadFull(r, b[minV2:])
	return b, err
}

// parse parses a complete header.
func parse(b []byte) (Announced, error) {
	rest := bufio.NewReader(bytes.NewReader(b))
	h, err := pires.Read(rest)
	if err != nil {
		return Announced{}, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	if left, _ := io.Copy(io.Discard, rest); left > 0 {
		return Announced{}, errLength
	}
	if h.Command.IsLocal() || h.TransportProtocol.IsUnspec() {
		return Announced{}, nil
	}
	if !h.TransportProtocol.IsStream() {
		return Announced{}, errDatagram
	}
	return Announced{h.SourceAddr, h.DestinationAddr}, nil
}
