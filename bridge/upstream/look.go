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
func look(conn net.Conn) (received bool, err error) {
	return readRecords(conn.(*tls.Conn).Read, socket.Of(conn).TryFill)
}

// maxFillsOfLook bounds the reads of one look. A server that sends tickets or
// key updates as fast as they are read would otherwise block the caller, and
// the pool with it.
const maxFillsOfLook = 64

// readRecords implements look with a TLS read and a fill of its socket.
func readRecords(read func([]byte) (int, error), fill func() error) (received bool, err error) {
	for range maxFillsOfLook {
		// First the data left by the handshake or by the previous look.
		n, err := read(make([]byte, 1))
		switch {
		case n > 0:
			return received, errSpoke
		case !errors.Is(err, socket.ErrWouldBlock):
			return received, err // io.EOF: close_notify
		}
		switch err := fill(); {
		case errors.Is(err, socket.ErrWouldBlock):
			return received, nil
		case err == io.EOF:
			return received, errTruncated
		case err != nil:
			return received, err
		}
		received = true
	}
	return received, errFlood
}
