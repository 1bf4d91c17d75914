package starttls

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
)

// MySQL's protocol 10, which MariaDB speaks too. The server never repeats its greeting
// over TLS, so a client gets the plaintext greeting. If the gateway requests TLS from
// the server, it sends the client's answer only over TLS.

// Capabilities, of the client and of the server.
const (
	mysqlConnectWithDB = 1 << 3
	mysqlProtocol41    = 1 << 9
	mysqlSSL           = 1 << 11
	mysqlSecure        = 1 << 15 // the authentication data has a length
	mysqlPluginAuth    = 1 << 19
	mysqlLongAuthData  = 1 << 21 // the length of the authentication data is length-encoded

	// mysqlOwnCapabilities are the capabilities of a connection without a client.
	mysqlOwnCapabilities = mysqlProtocol41 | mysqlSecure | mysqlPluginAuth
)

const (
	maxMySQLGreeting = 4 << 10
	maxMySQLResponse = 80 << 10 // connection attributes have up to 64 KiB
	maxMySQLAuth     = 64 << 10 // maximum size of a plugin's message
	mysqlHeader      = 4
	mysqlResponse    = 32 // size of the fixed part of a client's response, which is the request for TLS
)

// mysqlPacket returns a packet.
func mysqlPacket(sequence byte, payload []byte) []byte {
	n := len(payload)
	return append([]byte{byte(n), byte(n >> 8), byte(n >> 16), sequence}, payload...)
}

// mysqlSize returns the size of a packet's payload from its header.
func mysqlSize(header []byte, sequence byte, least, most int) (int, error) {
	n := int(header[0]) | int(header[1])<<8 | int(header[2])<<16
	switch {
	case n < least:
		return 0, errMySQLPacket
	case n > most:
		return 0, errMySQLTooLong
	case header[3] != sequence:
		return 0, errMySQLSequence
	}
	return n, nil
}

// A mysqlReader reads one packet, whose payload must not be empty.
type mysqlReader struct {
	received []byte
	sequence byte // the sequence number that the packet must have
	most     int  // maximum bytes of payload
}

var (
	errMySQLPacket   = errors.New("it is not a packet of MySQL")
	errMySQLTooLong  = errors.New("it is too long")
	errMySQLSequence = errors.New("it is out of sequence")
)

// feed returns the payload of a complete packet, and the bytes after the
// packet.
func (r *mysqlReader) feed(in []byte) (payload, rest []byte, complete bool, err error) {
	r.received = append(r.received, in...)
	if len(r.received) < mysqlHeader {
		return nil, nil, false, nil
	}
	n, err := mysqlSize(r.received, r.sequence, 1, r.most)
	if err != nil || len(r.received) < mysqlHeader+n {
		return nil, nil, false, err
	}
	return r.received[mysqlHeader : mysqlHeader+n], r.received[mysqlHeader+n:], true, nil
}

// mysqlClient reads a server's greeting.
type mysqlClient struct {
	reader   mysqlReader
	needsTLS bool // the server must offer TLS
	greeting mysqlGreeting
}

func newMySQLClient(needsTLS bool) *mysqlClient {
	return &mysqlClient{reader: mysqlReader{most: maxMySQLGreeting}, needsTLS: needsTLS}
}

func (c *mysqlClient) start() []byte   { return nil }
func (c *mysqlClient) waiting() string { return "the server: its greeting" }

func (c *mysqlClient) feed(in []byte) ([]byte, bool, error) {
	payload, rest, complete, err := c.reader.feed(in)
	switch {
	case err != nil:
		return nil, false, refused("the server sent %s as its greeting, which is not MySQL: %v", quote(c.reader.received), err)
	case !complete:
		return nil, false, nil
	case payload[0] == 0xff:
		return nil, false, refused("the server refused: it sent the error %s as its greeting", quote(mysqlErrorText(payload)))
	}
	g, ok := parseMySQLGreeting(payload)
	switch {
	case !ok:
		return nil, false, refused("the server sent %s as its greeting, which is not MySQL", quote(payload))
	case len(rest) > 0:
		return nil, false, injected("its greeting", rest)
	case c.needsTLS && g.capabilities&mysqlSSL == 0:
		return nil, false, refused("the server %s does not offer TLS in its greeting", quote(g.version))
	case g.capabilities&(mysqlProtocol41|mysqlPluginAuth|mysqlSecure) != mysqlProtocol41|mysqlPluginAuth|mysqlSecure:
		return nil, false, refused("the server %s is too old: it does not offer authentication plugins", quote(g.version))
	}
	c.greeting = g
	return nil, true, nil
}

// mysqlErrorText returns the code and message of an error packet.
func mysqlErrorText(payload []byte) string {
	if len(payload) < 3 {
		return ""
	}
	return fmt.Sprintf("%d %s", binary.LittleEndian.Uint16(payload[1:]), payload[3:])
}

// A mysqlGreeting is a server's greeting.
type mysqlGreeting struct {
	payload      []byte
	version      string
	capabilities uint32
	scramble     []byte // 20 bytes
	plugin       string // the server's default plugin
	at           int    // offset of the lower half of the capabilities in payload
}

// parseMySQLGreeting parses a greeting of protocol 10.
func parseMySQLGreeting(p []byte) (g mysqlGreeting, ok bool) {
	end := bytes.IndexByte(p, 0)
	if p[0] != 10 || end < 0 {
		return g, false
	}
	// The connection's number, 8 bytes of the scramble, and a zero byte come first.
	g.payload, g.version, g.at = bytes.Clone(p), string(p[1:end]), end+1+4+8+1
	const fixed = 2 + 1 + 2 + 2 + 1 + 10
	if len(p) < g.at+fixed+13 {
		return g, false
	}
	g.capabilities = uint32(binary.LittleEndian.Uint16(p[g.at:])) | uint32(binary.LittleEndian.Uint16(p[g.at+5:]))<<16
	g.scramble = append(bytes.Clone(p[end+5:end+13]), p[g.at+fixed:g.at+fixed+12]...)
	second := max(13, int(p[g.at+7])-8)
	if rest := p[g.at+fixed:]; len(rest) >= second {
		name, _, _ := bytes.Cut(rest[second:], []byte{0})
		g.plugin = string(name)
	}
	return g, true
}

// forClient returns the greeting's payload with or without the offer of TLS.
func (g *mysqlGreeting) forClient(offersTLS bool) []byte {
	p := bytes.Clone(g.payload)
	mysqlSetSSL(p[g.at:], offersTLS)
	return p
}

// mysqlSetSSL sets or clears mysqlSSL in capabilities.
func mysqlSetSSL(capabilities []byte, set bool) {
	capabilities[1] &^= mysqlSSL >> 8
	if set {
		capabilities[1] |= mysqlSSL >> 8
	}
}
