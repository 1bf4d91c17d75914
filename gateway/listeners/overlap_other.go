//go:build !linux

package listeners

import (
	"errors"
	"net"
)

// An overlapSocket is not supported on this system.
type overlapSocket struct{ *net.TCPListener }

func bindOverlapping(string, []*net.TCPListener) (*overlapSocket, error) {
	return nil, errors.ErrUnsupported
}

func (*overlapSocket) listen() error { return errors.ErrUnsupported }

func (*overlapSocket) unshare() {}
