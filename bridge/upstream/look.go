package upstream

import (
	"crypto/tls"
	"errors"
	"io"
	"net"

	"github.com/drawbridge-gateway/drawbridge/bridge/socket"
)

var (
	errFlood     = errors.New("the server sends an endless stream before the client's first byte")
	errSpoke     = errors.New("the server sent data before the client")
	errTruncated = errors.New("closed without close_notify")
)

// look checks, without blocking, whether an unused TLS connection is alive and
// whether the peer has sent anything since the last look. It consumes messages
// such as tickets. Application data makes the connection unusable, because it
// was not meant for the next client.
//
// The Socket of the connection must be in the mode of Stream.
func look(conn net.Conn) (heard bool, err error) {
	return takeIn(conn.(*tls.Conn).Read, socket.Of(conn).TryFill)
}

// maxFillsOfLook bounds the reads of one look. A server that sends tickets or
// key updates as fast as they are read would otherwise block the caller, and
// the pool with it.
const maxFillsOfLook = 64

// takeIn implements look with a TLS read and a fill of its socket.
func takeIn(read func([]byte) (int, error), fill func() error) (heard bool, err error) {
	for range maxFillsOfLook {
		// First the data left by the handshake or by the previous look.
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
