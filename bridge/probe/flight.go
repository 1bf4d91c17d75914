package probe

import (
	"context"
	"crypto/tls"
	"errors"
	"io"

	"golang.org/x/crypto/cryptobyte"
)

// A flight is a server's answer to a ClientHello: the plaintext beginning of
// its first flight.
type flight struct {
	version uint16 // the chosen version; 0 without a ServerHello
	suite   uint16
	group   uint16 // the chosen group; 0 if the flight does not show it
	leaf    []byte // the server's certificate in DER; nil under TLS 1.3, which encrypts it
}

// maxFlight bounds the bytes read of a flight.
const maxFlight = 128 << 10

var (
	errRefused = errors.New("the server refused the ClientHello")
	errFlight  = errors.New("the server's answer is malformed")
)

// offer sends a ClientHello on a new connection and reads the answer. It sends
// nothing else.
func (t search) offer(ctx context.Context, h *hello) (*flight, error) {
	record, err := h.record()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, trialTime)
	defer cancel()
	raw, done, err := t.target.open(ctx, timeouts{trialTime, trialTime})
	if err != nil {
		return nil, err
	}
	defer done()
	if _, err := raw.Write(record); err != nil {
		return nil, err
	}
	return readFlight(raw)
}

// readFlight reads messages until the flight has shown everything, or ends.
func readFlight(conn io.Reader) (*flight, error) {
	var f flight
	var messages []byte
	in := io.LimitReader(conn, maxFlight)
	for {
		kind, content, err := readRecord(in)
		switch {
		case f.version != 0 && (err != nil || kind != recordHandshake):
			return &f, nil
		case err != nil:
			return nil, err
		case kind != recordHandshake:
			return nil, errRefused
		}
		messages = append(messages, content...)
		for {
			rest, done, err := f.message(messages)
			if err != nil {
				return nil, err
			}
			if done {
				return &f, nil
			}
			if rest == nil {
				break
			}
			messages = rest
		}
	}
}

func readRecord(in io.Reader) (kind uint8, content []byte, err error) {
	var header [recordHeaderBytes]byte
	if _, err := io.ReadFull(in, header[:]); err != nil {
		return 0, nil, err
	}
	content = make([]byte, int(header[3])<<8|int(header[4]))
	_, err = io.ReadFull(in, content)
	return header[0], content, err
}

// Handshake messages of a server's first flight.
const (
	messageServerHello       = 2
	messageCertificate       = 11
	messageServerKeyExchange = 12
	messageServerHelloDone   = 14
)

// message parses the first message and returns the rest, or nil if the message
// is incomplete. It reports true once the flight has no more information.
func (f *flight) message(messages []byte) (rest []byte, done bool, err error) {
	input := cryptobyte.String(messages)
	var kind uint8
	var body cryptobyte.String
	if !input.ReadUint8(&kind) || !input.ReadUint24LengthPrefixed(&body) {
		return nil, false, nil
	}
	if f.version == 0 && kind != messageServerHello {
		return nil, false, errFlight
	}
	switch kind {
	case messageServerHello:
		if err := f.serverHello(body); err != nil {
			return nil, false, err
		}
		return input, f.version >= tls.VersionTLS13, nil
	case messageCertificate:
		var list, leaf cryptobyte.String
		if !body.ReadUint24LengthPrefixed(&list) || !list.ReadUint24LengthPrefixed(&leaf) {
			return nil, false, errFlight
		}
		f.leaf = leaf
	case messageServerKeyExchange:
		var curveType uint8
		if body.ReadUint8(&curveType) && curveType == 3 { // named_curve; finite-field groups have no name here
			body.ReadUint16(&f.group)
		}
		return input, true, nil
	case messageServerHelloDone:
		return input, true, nil
	}
	return input, false, nil
}

// serverHello parses a ServerHello or HelloRetryRequest.
func (f *flight) serverHello(body cryptobyte.String) error {
	var session, extensions cryptobyte.String
	if !body.ReadUint16(&f.version) || !body.Skip(32) || !body.ReadUint8LengthPrefixed(&session) || !body.ReadUint16(&f.suite) || !body.Skip(1) {
		f.version = 0
		return errFlight
	}
	if body.Empty() {
		return nil
	}
	if !body.ReadUint16LengthPrefixed(&extensions) {
		return errFlight
	}
	for !extensions.Empty() {
		var kind uint16
		var data cryptobyte.String
		if !extensions.ReadUint16(&kind) || !extensions.ReadUint16LengthPrefixed(&data) {
			return errFlight
		}
		switch kind {
		case extVersions:
			data.ReadUint16(&f.version)
		case extKeyShare:
			data.ReadUint16(&f.group) // the first value of a ServerHello's key share, and the only one of a HelloRetryRequest
		}
	}
	return nil
}
