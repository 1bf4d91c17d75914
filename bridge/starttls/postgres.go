package starttls

import (
	"bytes"
	"encoding/binary"
	"strings"
)

// Messages of PostgreSQL's protocol 3, before authentication.
const (
	maxPostgresError = 4 << 10 // maximum size of an ErrorResponse
	postgresSSL      = 80877103
)

// postgresRequest returns a request that consists of a length and a code.
func postgresRequest(code uint32) []byte {
	return binary.BigEndian.AppendUint32([]byte{0, 0, 0, 8}, code)
}

// postgresClient requests TLS from a server with SSLRequest. The server answers
// with one byte, or with an ErrorResponse.
type postgresClient struct {
	received []byte // the part of an ErrorResponse that has arrived
}

func newPostgresClient() dialect { return new(postgresClient) }

func (c *postgresClient) start() []byte   { return postgresRequest(postgresSSL) }
func (c *postgresClient) waiting() string { return "the server: its answer to SSLRequest" }

func (c *postgresClient) feed(in []byte) ([]byte, bool, error) {
	c.received = append(c.received, in[:min(len(in), maxPostgresError-len(c.received))]...)
	switch {
	case c.received[0] == 'S' && len(in) > 1:
		return nil, false, injected("its answer to SSLRequest", in[1:])
	case c.received[0] == 'S':
		return nil, true, nil
	case c.received[0] == 'N':
		return nil, false, refused("the server answered SSLRequest with %s: it does not accept TLS (ssl is off in postgresql.conf)", quote(c.received))
	case c.received[0] != 'E':
		return nil, false, refused("the server answered SSLRequest with %s, which is not PostgreSQL", quote(c.received))
	}
	return nil, false, c.refusal()
}

// refusal returns the error for an ErrorResponse, or nil while it is
// incomplete.
func (c *postgresClient) refusal() error {
	if len(c.received) < 5 {
		return nil
	}
	end := 1 + uint64(binary.BigEndian.Uint32(c.received[1:5]))
	if end < 5 || end > maxPostgresError {
		return refused("the server answered SSLRequest with %s, which is not PostgreSQL", quote(c.received))
	}
	if uint64(len(c.received)) < end {
		return nil
	}
	var parts []string
	for field := range bytes.SplitSeq(c.received[5:end], []byte{0}) {
		if len(field) > 1 && (field[0] == 'S' || field[0] == 'C' || field[0] == 'M') {
			parts = append(parts, string(field[1:]))
		}
	}
	return refused("the server answered SSLRequest with an error: %s", quote(strings.Join(parts, " ")))
}
