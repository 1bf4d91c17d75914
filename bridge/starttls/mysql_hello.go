package starttls

import (
	"bytes"
	"encoding/binary"
	"errors"
)

// mysqlHello greets a client, and reads its response or its request for TLS.
type mysqlHello struct {
	greeting []byte
	offers   bool // the client is offered TLS
	optional bool

	reader mysqlReader
	asked  bool // the client has requested TLS

	// The results: the payload of a response in plaintext, or the beginning of the
	// client's TLS handshake.
	response, first []byte
}

// newMySQLHello returns a dialog with a client that is served in plaintext.
func newMySQLHello(greeting []byte) *mysqlHello {
	return &mysqlHello{greeting: greeting, reader: mysqlReader{sequence: 1, most: maxMySQLResponse}}
}

// newMySQLServer returns a dialog with a client that is offered TLS.
func newMySQLServer(greeting []byte, optional bool) *mysqlHello {
	h := newMySQLHello(greeting)
	h.offers, h.optional = true, optional
	return h
}

func (h *mysqlHello) start() []byte { return mysqlPacket(0, h.greeting) }

func (h *mysqlHello) waiting() string {
	if h.asked {
		return "the client: its TLS handshake"
	}
	return "the client: its response to the greeting"
}

func (h *mysqlHello) feed(in []byte) ([]byte, bool, error) {
	if h.asked {
		err := h.begin(in)
		return nil, err == nil, err
	}
	payload, rest, complete, err := h.reader.feed(in)
	switch {
	case err != nil && h.offers:
		return nil, false, wrongProtocol(h.reader.received, "MySQL")
	case err != nil || !complete:
		return nil, false, err
	case h.offers && len(payload) == mysqlResponse:
		return h.request(payload, rest)
	}
	if err := h.respond(payload, rest); err != nil {
		if h.offers {
			return nil, false, refused("the client's first message is not the one of a client of MySQL 4.1 or later: %v", err)
		}
		return nil, false, err
	}
	if h.offers && !h.optional {
		const required = "this server requires TLS (--ssl)"
		return mysqlPacket(2, mysqlErrorOf(3159, "HY000", required)), false, refused("the client began a session in plaintext and did not request TLS")
	}
	h.response = bytes.Clone(payload)
	return nil, true, nil
}

// request reads a request for TLS. The client begins its handshake without waiting for
// an answer.
func (h *mysqlHello) request(payload, rest []byte) ([]byte, bool, error) {
	if binary.LittleEndian.Uint32(payload)&(mysqlSSL|mysqlProtocol41) != mysqlSSL|mysqlProtocol41 {
		return nil, false, wrongProtocol(h.reader.received, "MySQL")
	}
	h.asked = true
	if len(rest) == 0 {
		return nil, false, nil
	}
	err := h.begin(rest)
	return nil, err == nil, err
}

// begin reads the beginning of the client's handshake.
func (h *mysqlHello) begin(in []byte) error {
	var first firstRecord
	_, _, err := first.feed(in)
	h.first = first.received
	return err
}

// respond checks a response in plaintext.
func (h *mysqlHello) respond(payload, rest []byte) error {
	switch {
	case len(rest) > 0:
		return errors.New("it sent more than its response")
	case len(payload) <= mysqlResponse:
		return errors.New("it asked for TLS, which was not offered")
	}
	capabilities := binary.LittleEndian.Uint32(payload)
	if capabilities&mysqlProtocol41 == 0 || capabilities&mysqlSSL != 0 {
		return errors.New("its capabilities are not those of a client in plaintext of MySQL 4.1 or later")
	}
	return nil
}

// mysqlSecured reads the client's response over TLS.
type mysqlSecured struct {
	reader   mysqlReader
	response []byte
}

func newMySQLSecured() *mysqlSecured {
	return &mysqlSecured{reader: mysqlReader{sequence: 2, most: maxMySQLResponse}}
}

func (s *mysqlSecured) start() []byte   { return nil }
func (s *mysqlSecured) waiting() string { return "the client: its response over TLS" }

func (s *mysqlSecured) feed(in []byte) ([]byte, bool, error) {
	payload, rest, complete, err := s.reader.feed(in)
	switch {
	case err != nil || !complete:
		return nil, false, err
	case len(rest) > 0:
		return nil, false, errors.New("it sent more than its response")
	case len(payload) <= mysqlResponse || binary.LittleEndian.Uint32(payload)&mysqlProtocol41 == 0:
		return nil, false, errors.New("it is not the response of a client of MySQL 4.1 or later")
	}
	s.response = bytes.Clone(payload)
	return nil, true, nil
}

// mysqlErrorOf returns the payload of an error packet.
func mysqlErrorOf(code uint16, state, message string) []byte {
	return append(binary.LittleEndian.AppendUint16([]byte{mysqlErr}, code), "#"+state+message...)
}

// mysqlPlugin returns the authentication plugin that a client's response names, or the
// server's default.
func mysqlPlugin(response []byte, byDefault string) string {
	capabilities, rest := binary.LittleEndian.Uint32(response), response[mysqlResponse:]
	cut := func() bool {
		_, after, ok := bytes.Cut(rest, []byte{0})
		rest = after
		return ok
	}
	if capabilities&mysqlPluginAuth == 0 || !cut() { // the user
		return byDefault
	}
	switch { // the authentication data
	case capabilities&(mysqlSecure|mysqlLongAuthData) == 0:
		if !cut() {
			return byDefault
		}
	default:
		n, size := 0, 1
		if len(rest) > 0 {
			n = int(rest[0])
		}
		if capabilities&mysqlLongAuthData != 0 && n >= 0xfb {
			if n != 0xfc || len(rest) < 3 {
				return byDefault
			}
			n, size = int(binary.LittleEndian.Uint16(rest[1:])), 3
		}
		if len(rest) < size+n {
			return byDefault
		}
		rest = rest[size+n:]
	}
	if capabilities&mysqlConnectWithDB != 0 && !cut() {
		return byDefault
	}
	name, _, _ := bytes.Cut(rest, []byte{0})
	if len(name) == 0 {
		return byDefault
	}
	return string(name)
}
