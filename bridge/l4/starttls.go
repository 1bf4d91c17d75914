package l4

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"github.com/drawbridge-gateway/drawbridge/bridge/intake"
	"github.com/drawbridge-gateway/drawbridge/bridge/socket"
	"github.com/drawbridge-gateway/drawbridge/bridge/splice"
	"github.com/drawbridge-gateway/drawbridge/bridge/starttls"
	"github.com/drawbridge-gateway/drawbridge/certs"
)

// open answers the client until it asks for TLS, if the listener's protocol begins in
// plaintext. The next read returns the bytes that the client sent after its request.
func (c *conn) open(t *Table, deadline time.Time) (starttls.Opening, *intake.Refusal) {
	if t.Starttls == starttls.None {
		return starttls.Opening{}, nil
	}
	ctx, cancel := context.WithDeadline(c.server.intake.Context(), deadline)
	defer cancel()
	opening, err := t.Starttls.Accept(ctx, c.client, t.StarttlsOptional)
	if err != nil {
		return opening, c.server.intake.Refuse(&c.Conn, c.client, certs.ClassifyAccept(err), err)
	}
	if opening.Next != starttls.Cancel {
		c.client.Unread(opening.Read)
	}
	return opening, nil
}

// greetLater returns the client of a protocol in which the upstream greets first.
// After the greeting, the client requests TLS if the listener offers it.
func (c *conn) greetLater(t *Table, rules *intake.Rules, client net.Conn) *starttls.Client {
	later := starttls.NewClient(client, &c.server.passwords)
	if t.Starttls.ServerGreets() {
		later.Offer(starttls.Offer{
			Optional: t.StarttlsOptional, Timeout: rules.Timeout(),
			Handshake: func(read []byte, deadline time.Time) (net.Conn, error) { return c.secureLate(t, read, deadline) },
		})
	}
	return later
}

// errRefused reports that conn.refusal has the reason.
var errRefused = errors.New("the client was refused")

// secureLate makes the TLS handshake with a client that has received the upstream's
// greeting.
func (c *conn) secureLate(t *Table, read []byte, deadline time.Time) (net.Conn, error) {
	started := time.Now()
	c.client.Unread(read)
	tc := t.TLS.Conn(c.client)
	peer, r := c.server.intake.Handshake(&c.Conn, t.TLS, tc, c.client, deadline)
	if r != nil {
		c.refusal = r
		return nil, errRefused
	}
	c.server.intake.Verified(&c.Conn, c.client, peer)
	c.late = tc
	if c.details != nil {
		c.details.handshakeDone(tc, time.Since(started))
		c.details.serverName = peer.ServerName
	}
	return tc, nil
}

// refused returns why the client did not complete the upgrade offered after the
// upstream's greeting, or nil.
func (c *conn) refused(later *starttls.Client) *intake.Refusal {
	if err := later.Refusal(); err != nil {
		return c.server.intake.Refuse(&c.Conn, c.client, certs.ClassifyAccept(err), err)
	}
	return c.refusal
}

// checkALPN refuses a client that did not negotiate the protocol that its opening
// requires.
func (c *conn) checkALPN(tc *tls.Conn, opening starttls.Opening) *intake.Refusal {
	got := tc.ConnectionState().NegotiatedProtocol
	if opening.ALPN == "" || got == opening.ALPN {
		return nil
	}
	err := fmt.Errorf("the client began with TLS and negotiated the protocol %q by ALPN; it must be %q", got, opening.ALPN)
	return c.server.intake.Refuse(&c.Conn, c.client, certs.ReasonALPNMismatch, err)
}

// join prepares the upstream connection for a client that open has answered. It
// returns what the client expects next.
func (c *conn) join(ctx context.Context, t *Table, back net.Conn, opening starttls.Opening, timeout time.Duration) ([]byte, error) {
	greeting := c.turn.Greeting()
	if t.Starttls == starttls.None {
		return greeting, nil
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	defer await(back)()
	return t.Starttls.Join(ctx, back, opening, greeting)
}

// joinFailed records an error of join, and closes the client's connection.
func (c *conn) joinFailed(later *starttls.Client, err error) {
	if r := c.refused(later); r != nil {
		c.recordRefusal(r)
		return
	}
	o := &c.outcome
	o.how, o.err, o.reason = endDial, err, certs.Classify(err)
	switch o.reason {
	case certs.ReasonClientFailed:
		o.how = splice.ClientFailed
		c.client.Reset()
	case certs.ReasonLocalConfig:
		c.client.LingerClose() // a reset could overtake the explanation
	default:
		c.endpoint.NoteFailure(err)
		c.client.Reset()
	}
}

// relayCancel sends a request to cancel a statement, and waits until the server has
// read it and closes the connection. The server sends no answer. The gateway reads
// nothing else from the client, because the client has shown neither TLS nor a
// certificate.
func relayCancel(back net.Conn, request []byte, timeout time.Duration) {
	defer await(back)()
	_ = back.SetDeadline(time.Now().Add(timeout)) // fails only on a closed connection, and then Write fails too
	if _, err := back.Write(request); err == nil {
		_, _ = io.Copy(io.Discard, io.LimitReader(back, 4<<10))
	}
}

// await makes reads of a warm connection wait for bytes, until the caller calls
// done.
func await(back net.Conn) (done func()) {
	sock := socket.Of(back)
	sock.AllowWait(true)
	sock.BeginWait()
	return func() { sock.AllowWait(false) }
}
