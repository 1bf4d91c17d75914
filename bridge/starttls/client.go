package starttls

import (
	"context"
	"net"

	"github.com/drawbridge-gateway/drawbridge/bridge/socket"
	"github.com/drawbridge-gateway/drawbridge/certs"
)

// A Client is a client in plaintext whose first messages an upgrade needs: MySQL's
// request for TLS contains what the client sent. It is for one connection.
type Client struct {
	conn    net.Conn
	key     *Key
	greeted bool

	response []byte // the client's packet after the greeting, without its header
	auth     mysqlAuth
}

// NewClient returns the client at conn, which stays the caller's.
func NewClient(conn net.Conn, key *Key) *Client { return &Client{conn: conn, key: key} }

// Greeted reports whether the client has received a server's greeting. Then no other
// server can serve it, because the greeting is part of the authentication.
func (c *Client) Greeted() bool { return c != nil && c.greeted }

type clientKey struct{}

// WithClient returns a context for Upgrade and Greet of a connection for one client.
func WithClient(ctx context.Context, c *Client) context.Context {
	return context.WithValue(ctx, clientKey{}, c)
}

// ClientOf returns the client of WithClient, or nil.
func ClientOf(ctx context.Context) *Client {
	c, _ := ctx.Value(clientKey{}).(*Client)
	return c
}

// run exchanges messages with the client. Its errors do not blame the server.
func (c *Client) run(ctx context.Context, d dialect) error {
	err := socket.Within(ctx, c.conn, func() error { return exchange(c.conn, d) })
	return c.blame(d.waiting(), err)
}

func (c *Client) blame(waiting string, err error) error {
	if err == nil {
		return nil
	}
	return &certs.VerifyError{Reason: certs.ReasonClientFailed, Detail: "waiting for " + waiting + ": " + certs.ErrorText(err), Err: err}
}
