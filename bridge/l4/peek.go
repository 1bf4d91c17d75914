package l4

import (
	"errors"
	"io"
	"time"

	"github.com/drawbridge-gateway/drawbridge/bridge/clienthello"
	"github.com/drawbridge-gateway/drawbridge/certs"
)

// helloSize is as much as nearly all ClientHellos are, those with a post-quantum key
// share included.
const helloSize = 4 << 10

// peek reads the ClientHello that the connection must begin with, and has it read
// again by whoever reads next. However it is cut up, it is read to its end: a part
// of it would be taken for a client that asks for no name, which may lead to a
// laxer place.
func (c *conn) peek(deadline time.Time) (clienthello.Hello, error) {
	_ = c.client.SetReadDeadline(deadline) // fails only on a closed connection, and then so does all else
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

// helloReason is certs.ClassifyAccept for the errors of peek.
func helloReason(err error) certs.Reason {
	switch {
	case errors.Is(err, clienthello.ErrNotTLS), errors.Is(err, clienthello.ErrMalformed):
		return certs.ReasonNotTLS
	case errors.Is(err, io.EOF):
		return certs.ReasonPeerClosed
	}
	return certs.ClassifyAccept(err)
}

// Alerts of RFC 8446, section 6.
const alertUnrecognizedName = 112

// alert tells a client of TLS, with whom nobody has shaken hands, why nobody will.
func (c *conn) alert(description byte) {
	const alert, fatal = 21, 2
	// It fails only if the client has gone.
	_ = c.client.SetWriteDeadline(time.Now().Add(time.Second))
	_, _ = c.client.Write([]byte{alert, 3, 1, 0, 2, fatal, description})
}
