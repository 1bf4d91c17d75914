//go:build !linux

package listeners

import (
	"errors"
	"net"
)

// A beside is not supported on this system.
type beside struct{ *net.TCPListener }

func bindBeside(string, []*net.TCPListener) (*beside, error) { return nil, errors.ErrUnsupported }

func (*beside) listen() error { return errors.ErrUnsupported }

func (*beside) settle() {}
