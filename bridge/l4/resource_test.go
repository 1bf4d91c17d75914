package l4_test

import (
	"bytes"
	"encoding/binary"
	"io"
	"net"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/drawbridge-gateway/drawbridge/bridge/alloctest"
	"github.com/drawbridge-gateway/drawbridge/bridge/clienthello"
	"github.com/drawbridge-gateway/drawbridge/bridge/proxyproto"
	"github.com/drawbridge-gateway/drawbridge/certs"
)

// A cost bounds what a parser of new connections may spend on an input.
type cost struct {
	name  string
	input []byte
	parse func(input []byte)
	bound alloctest.Bound
}

// costs returns the most expensive inputs.
func costs(t *testing.T) []cost {
	hello := append([]byte{1, 0, 0xff, 0xff}, make([]byte, 0xffff)...) // the longest valid hello
	serverHello := append([]byte{2}, hello[1:]...)
	records := func(hello []byte, size int) (wire []byte) {
		for rest := hello[:len(hello)-1]; len(rest) > 0; {
			n := min(size, len(rest))
			wire = binary.BigEndian.AppendUint16(append(wire, 22, 3, 1), uint16(n))
			wire, rest = append(wire, rest[:n]...), rest[n:]
		}
		return wire
	}
	scan := func(chunk int) func([]byte) {
		return func(input []byte) {
			s := new(clienthello.Scanner)
			for len(input) > 0 {
				n := min(chunk, len(input))
				if whole, err := s.Feed(input[:n]); err != nil || whole {
					return
				}
				input = input[n:]
			}
		}
	}
	announce := func(one bool) func([]byte) {
		return func(input []byte) {
			var r io.Reader = bytes.NewReader(input)
			if one {
				r = iotest.OneByteReader(r)
			}
			_, _ = proxyproto.Read(r)
		}
	}
	p := newPKI(t)
	server := p.listener(t, "gate.test")
	client, err := certs.NewClient(p.upstream(t, "upstream.test"))
	if err != nil {
		t.Fatal(err)
	}
	handshakeWith := func(input []byte) {
		_, _ = client.Handshake(t.Context(), &memory{Reader: bytes.NewReader(input)})
	}
	handshake := func(input []byte) {
		_ = server.Conn(&memory{Reader: bytes.NewReader(input)}).Handshake()
	}
	v2 := append([]byte("\r\n\r\n\x00\r\nQUIT\n\x21\x11"), binary.BigEndian.AppendUint16(nil, 4000)...)
	v2 = append(v2, make([]byte, 4000)...)
	v1 := []byte("PROXY TCP6 " + strings.Repeat("ffff:", 7) + "ffff " + strings.Repeat("ffff:", 7) + "fffe 65535 65534\r\n")
	growing := alloctest.Bound{Memory: 16, Reason: "crypto/tls doubles its buffers as they grow, and drops the smaller ones"}
	return []cost{
		{name: "ClientHello at once", input: records(hello, 1<<14), parse: scan(1 << 17)},
		{name: "ClientHello byte by byte", input: records(hello, 1<<14), parse: scan(1)},
		{name: "ClientHello in records of a byte", input: records(hello, 1), parse: scan(1 << 17)},
		{name: "PROXY header of version 2", input: v2, parse: announce(false)},
		{name: "PROXY header of version 2, byte by byte", input: v2, parse: announce(true)},
		{name: "PROXY header of version 1", input: v1, parse: announce(true), bound: alloctest.Bound{
			CPU: 500 * time.Nanosecond, Reason: "a header of version 1 has 107 bytes at most, and two addresses are parsed from text"}},
		{name: "TLS handshake, at once", input: records(hello, 1<<14), parse: handshake, bound: growing},
		{name: "TLS handshake, in small records", input: records(hello, 512), parse: handshake, bound: growing},
		{name: "TLS handshake, in records of a byte", input: records(hello, 1), parse: handshake, bound: growing},
		{name: "TLS handshake with an upstream, at once", input: records(serverHello, 1<<14), parse: handshakeWith, bound: growing},
		{name: "TLS handshake with an upstream, in records of a byte", input: records(serverHello, 1), parse: handshakeWith, bound: growing},
	}
}

// A memory is a connection that reads from memory and discards writes.
type memory struct {
	net.Conn
	io.Reader
}

func (m *memory) Read(p []byte) (int, error)       { return m.Reader.Read(p) }
func (m *memory) Write(p []byte) (int, error)      { return len(p), nil }
func (m *memory) SetDeadline(time.Time) error      { return nil }
func (m *memory) SetReadDeadline(time.Time) error  { return nil }
func (m *memory) SetWriteDeadline(time.Time) error { return nil }
func (m *memory) Close() error                     { return nil }
func (m *memory) RemoteAddr() net.Addr             { return &net.TCPAddr{} }
func (m *memory) LocalAddr() net.Addr              { return &net.TCPAddr{} }

var _ net.Conn = (*memory)(nil)

// A client's first bytes cost memory and time in proportion to their number.
func TestCostOfNewConnections(t *testing.T) {
	for _, c := range costs(t) {
		t.Run(c.name, func(t *testing.T) {
			alloctest.WantCost(t, len(c.input), c.bound, func() { c.parse(c.input) })
		})
	}
}
