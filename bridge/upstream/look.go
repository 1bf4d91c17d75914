package upstream

import (
	"crypto/tls"
	"errors"
	"io"
	"net"

	"github.com/drawbridge-gateway/drawbridge/bridge/socket"
)

var (
	errFlood     = errors.New("the server sends without end before the client has spoken")
	errSpoke     = errors.New("the server has spoken before the client")
	errTruncated = errors.New("closed without close_notify")
)

// look finds out, without waiting, whether a TLS connection that nobody uses yet
// is alive, and whether anything has come from the peer since it was last looked
// at. What comes after a handshake, such as tickets, is taken in; what is said to
// the client means that it is over: it was not for whoever would get it.
//
// The connection must be such that its Socket is read as Stream has it.
func look(conn net.Conn) (heard bool, err error) {
	return takeIn(conn.(*tls.Conn).Read, socket.Of(conn).TryFill)
}

// maxFillsOfLook bounds how often one look takes in what has come. A server that sends
// tickets or key updates as fast as they are read would hold up whoever looks, and the
// pool with them.
const maxFillsOfLook = 64

// takeIn is look by what reads from TLS and what fills its socket.
func takeIn(read func([]byte) (int, error), fill func() error) (heard bool, err error) {
	for range maxFillsOfLook {
		// First what the handshake has left, or an earlier look of a record.
		n, err := read(make([]byte, 1))
		switch {
		case n > 0:
			return heard, errSpoke
		case !errors.Is(err, socket.ErrWouldBlock):
			return heard, err // io.EOF: close_notify
		}
		switch err := fill(); {
		case errors.Is(err, socket.ErrWouldBlock):
			return heard, nil
		case err == io.EOF:
			return heard, errTruncated
		case err != nil:
			return heard, err
		}
		heard = true
	}
	return heard, errFlood
}

// refused reports whether err is an alert of the peer: it does not take our
// certificate, for one, which with TLS 1.3 it says only after the handshake.
func refused(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && op.Op == "remote error"
}
