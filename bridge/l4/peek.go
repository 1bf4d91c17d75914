package l4

import (
	"errors"
	"io"
	"time"

	"github.com/drawbridge-gateway/drawbridge/bridge/clienthello"
	"github.com/drawbridge-gateway/drawbridge/certs"
)

// helloSize is larger than nearly all ClientHellos, including those with a post-quantum
// key share.
const helloSize = 4 << 10

// peek reads the ClientHello that the connection must begin with, and puts it back for
// the next read. It reads to the hello's end, however it is fragmented: part of a hello
// would look like a client that sends no server name, and could reach a less strict
// route.
func (c *conn) peek(deadline time.Time) (clienthello.Hello, error) {
	_ = c.client.SetReadDeadline(deadline) // fails only on a closed connection, and then Read fails too
	defer c.client.SetReadDeadline(time.Time{})
	var scan clienthello.Scanner
	buf := make([]byte, 0, helloSize)
	for {
		if len(buf) == cap(buf) {
			buf = append(buf, 0)[:len(buf)]
		}
		n, err := c.client.Read(buf[len(buf):cap(buf)])
		whole, scanErr := scan.Feed(buf[len(buf) : len(buf)+n])
		buf = buf[:len(buf)+n]
		switch {
		case scanErr != nil:
			return clienthello.Hello{}, scanErr
		case whole:
			c.client.Unread(buf)
			return scan.Hello()
		case err != nil:
			return clienthello.Hello{}, err
		}
	}
}

// helloReason returns the reason for an error of peek.
func helloReason(err error) certs.Reason {
	switch {
	case errors.Is(err, clienthello.ErrTrailingDot):
		return certs.ReasonUnrecognizedName
	case errors.Is(err, clienthello.ErrNotTLS), errors.Is(err, clienthello.ErrMalformed):
		return certs.ReasonNotTLS
	case errors.Is(err, io.EOF):
		return certs.ReasonPeerClosed
	}
	return certs.ClassifyAccept(err)
}

// Alerts of RFC 8446, section 6.
const alertUnrecognizedName = 112

// alert sends a fatal alert to a TLS client before any handshake.
func (c *conn) alert(description byte) {
	const alert, fatal = 21, 2
	// Errors mean that the client has closed, and are ignored.
	_ = c.client.SetWriteDeadline(time.Now().Add(time.Second))
	_, _ = c.client.Write([]byte{alert, 3, 1, 0, 2, fatal, description})
}
