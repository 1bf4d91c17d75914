package starttls

import (
	"context"
	"errors"
	"net"

	"github.com/drawbridge-gateway/drawbridge/bridge/socket"
	"github.com/drawbridge-gateway/drawbridge/certs"
)

// A dialect is one side of the exchange before a TLS handshake.
type dialect interface {
	// start returns the bytes to send first; nil: the peer speaks first.
	start() []byte

	// feed consumes the peer's bytes, in pieces of any size, and returns the bytes
	// to send. Done means that the TLS handshake follows. After an error or done,
	// feed must not be called again.
	feed(in []byte) (out []byte, done bool, err error)

	// waiting names the message that the dialect waits for.
	waiting() string
}

// readSize is the size of a read. Reads beyond the end of a message are
// intended: so that bytes injected after the agreement to start TLS are
// detected.
const readSize = 1024

// Upgrade requests TLS from the server at conn. When it returns nil, the server
// has agreed, has sent nothing else, and waits for the TLS handshake. It stops
// when ctx ends, and owns the deadlines of conn until it returns. After an
// error conn is unusable; the error has a reason of package certs.
func (p Protocol) Upgrade(ctx context.Context, conn net.Conn) error {
	switch p {
	case None:
		return nil
	case MySQL:
		return upgradeMySQL(ctx, conn)
	}
	return run(ctx, conn, specs[p].client())
}

// Greet completes the upgrade after the TLS handshake of conn, and returns the
// greeting for a plaintext client: the bytes that the client would have received
// first from the server. It is empty if clients speak first, and for MySQL, whose
// client Greet authenticates instead. Greet has the bounds and errors of Upgrade.
func (p Protocol) Greet(ctx context.Context, conn net.Conn) ([]byte, error) {
	if c := ClientOf(ctx); p == MySQL && c != nil {
		return nil, c.authenticate(ctx, conn, true, false)
	}
	secured := specs[p].secured
	if secured == nil {
		return nil, nil
	}
	s := secured()
	if err := run(ctx, conn, s); err != nil {
		return nil, err
	}
	return s.greeting(), nil
}

// run exchanges messages until the dialect is done, an error or the end of ctx.
func run(ctx context.Context, conn net.Conn, d dialect) error {
	err := socket.Within(ctx, conn, func() error { return exchange(conn, d) })
	if _, typed := errors.AsType[*certs.VerifyError](err); err == nil || typed {
		return err
	}
	if ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	return broken(d.waiting(), err)
}

// exchange sends and receives messages until the dialect is done.
func exchange(conn net.Conn, d dialect) error {
	buf := make([]byte, readSize)
	for out := d.start(); ; {
		if err := send(conn, out); err != nil {
			return err
		}
		n, err := conn.Read(buf)
		if n > 0 {
			var done bool
			var bad error
			out, done, bad = d.feed(buf[:n])
			switch {
			case bad != nil:
				_ = send(conn, out) // bad is more useful than an error of the write
				return bad
			case done:
				return send(conn, out)
			}
		}
		if err != nil {
			return err
		}
	}
}

// send sends a message, if it is not empty.
func send(conn net.Conn, message []byte) error {
	if len(message) == 0 {
		return nil
	}
	_, err := conn.Write(message)
	return err
}
