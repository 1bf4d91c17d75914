package starttls

import (
	"context"
	"errors"
	"net"
	"time"

	"github.com/drawbridge-gateway/drawbridge/bridge/socket"
	"github.com/drawbridge-gateway/drawbridge/certs"
)

// A Client is a MySQL client, whose first messages answer the server's greeting. So
// the upstream connection is opened before the client requests TLS or begins its
// session. A Client is for one connection.
type Client struct {
	conn    net.Conn // plaintext, or the client's TLS once secure is set
	key     *Key
	offer   *Offer // the offer of TLS; nil: the client is served in plaintext
	secure  bool
	greeted bool
	waited  time.Duration // time spent waiting for the client's response, including its handshake
	refusal error

	response []byte // the client's packet after the greeting, without its header
	auth     mysqlAuth
	ended    bool // the authentication has ended
}

// NewClient returns the client at conn, which the caller still owns.
func NewClient(conn net.Conn, key *Key) *Client { return &Client{conn: conn, key: key} }

// An Offer is a listener's offer of TLS to a client.
type Offer struct {
	// Optional serves the client in plaintext if it does not request TLS.
	Optional bool

	// Timeout bounds the client's request and handshake, from the greeting on.
	Timeout time.Duration

	// Handshake makes the TLS handshake with the client, which begins with read.
	Handshake func(read []byte, deadline time.Time) (net.Conn, error)
}

// Offer offers TLS to the client. It must be called before the client is greeted.
func (c *Client) Offer(o Offer) { c.offer = &o }

// Greeted reports whether the client has received a server's greeting. Then no other
// server can serve it, because the greeting is part of the authentication.
func (c *Client) Greeted() bool { return c != nil && c.greeted }

// Conn returns the client's connection: TLS, or plaintext if the client has not
// requested TLS.
func (c *Client) Conn() net.Conn { return c.conn }

// Secure reports whether the client has completed its TLS handshake.
func (c *Client) Secure() bool { return c.secure }

// Refusal returns why the client did not complete the upgrade that it was offered, or
// nil. Its reason is one of the reasons of Accept. It is nil if Offer.Handshake
// failed.
func (c *Client) Refusal() error {
	if c == nil {
		return nil
	}
	return c.refusal
}

type clientKey struct{}

// WithClient returns a context for Upgrade, Greet and Join of a connection for one
// client.
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

// promptTime is a response time that is too short to make any server time out:
// MySQL's connect_timeout is at least 2 seconds.
const promptTime = time.Second

// Attribute returns the error of a server that closed the connection or ran out of time.
// The error blames the client if the client took long to answer. Otherwise slow
// clients could make an endpoint count as failed. c may be nil.
func (c *Client) Attribute(err error) error {
	if c == nil || c.waited < promptTime {
		return err
	}
	switch certs.Classify(err) {
	case certs.ReasonPeerClosed, certs.ReasonHandshakeTimeout:
		return c.blame("the client, which took "+c.waited.Round(time.Millisecond).String()+" to answer the greeting", err)
	}
	return err
}

// greet sends the client the server's greeting, and reads its response: over TLS if the
// client is offered TLS and requests it.
func (c *Client) greet(ctx context.Context, g mysqlGreeting) error {
	if c.greeted {
		return c.blame("the client", errors.New("it has already received the greeting of another server"))
	}
	c.greeted = true
	begin := time.Now()
	defer func() { c.waited = time.Since(begin) }()
	greeting := g.forClient(c.offer != nil)
	if c.offer == nil {
		hello := newMySQLHello(greeting)
		if err := c.run(ctx, hello); err != nil {
			return err
		}
		c.response = hello.response
	} else if err := c.open(ctx, newMySQLServer(greeting, c.offer.Optional), begin.Add(c.offer.Timeout)); err != nil {
		return err
	}
	c.auth = mysqlAuth{plugin: mysqlPlugin(c.response, g.plugin), scramble: g.scramble}
	return nil
}

// open reads the response of a client that is offered TLS.
func (c *Client) open(ctx context.Context, hello *mysqlHello, deadline time.Time) error {
	ctx, cancel := context.WithDeadline(ctx, deadline)
	defer cancel()
	if err := run(ctx, c.conn, hello); err != nil {
		c.refusal = err
		return c.blame(hello.waiting(), err)
	}
	if hello.first == nil {
		c.response = hello.response
		return nil
	}
	conn, err := c.offer.Handshake(hello.first, deadline)
	if err != nil {
		return c.blame("the client: its TLS handshake", err)
	}
	c.conn, c.secure = conn, true
	secured := newMySQLSecured()
	if err := c.run(ctx, secured); err != nil {
		return err
	}
	c.response = secured.response
	return nil
}
