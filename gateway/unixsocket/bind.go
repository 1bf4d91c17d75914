package unixsocket

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"syscall"
)

// Bind listens on a unix socket at path, for the clients of a listener. Unlike
// Listen, it creates no directories, and connections report path itself as
// their local address. Bind replaces the socket of a dead process.
//
// Only its owner can connect to the socket until it has the group and mode of
// o.
func Bind(path string, o Options) (_ *Listener, err error) {
	group, err := lookUpGroup(o.Group)
	if err != nil {
		return nil, err
	}
	if err := removeStale(path); err != nil {
		return nil, err
	}
	config := net.ListenConfig{Control: func(_, _ string, raw syscall.RawConn) error {
		return errors.Join(raw.Control(func(fd uintptr) { err = ownerOnly(fd) }), err)
	}}
	l, err := config.Listen(context.Background(), "unix", path)
	if err != nil {
		return nil, err
	}
	inner := l.(*net.UnixListener)
	inner.SetUnlinkOnClose(false)
	made, err := os.Lstat(path)
	if err != nil {
		inner.Close()
		return nil, err
	}
	bound := &Listener{UnixListener: inner, path: path, made: made}
	if err := permit(path, o.Mode, group); err != nil {
		bound.Close()
		return nil, fmt.Errorf("unix socket %s: %w", path, err)
	}
	return bound, nil
}

// removeStale removes the socket file of a dead process. It keeps any other file, on
// which bind then fails.
func removeStale(path string) error {
	info, err := os.Lstat(path)
	if err != nil || info.Mode().Type() != os.ModeSocket {
		return nil
	}
	conn, err := net.Dial("unix", path)
	if err == nil {
		conn.Close()
		return nil
	}
	if errors.Is(err, syscall.ECONNREFUSED) {
		return os.Remove(path)
	}
	return nil
}
