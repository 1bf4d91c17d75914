package starttls

import (
	"context"
	"fmt"
	"net"

	"github.com/drawbridge-gateway/drawbridge/certs"
)

// An Opening says how a client continues after its first messages.
type Opening struct {
	Next Next

	// Read holds the bytes that were read but not answered: the beginning of the TLS
	// handshake or of the session, or the whole request to cancel a statement.
	Read []byte

	// ALPN is the protocol that the handshake must negotiate, so that a client of
	// another protocol cannot reach the server. Empty: any, or none.
	ALPN string

	hello string // the introduction of a client that continues in plaintext
}

// Next says what follows a client's first messages.
type Next int

// The values of Next.
const (
	TLS       Next = iota // the client's TLS handshake
	Plaintext             // the session, in plaintext
	Cancel                // nothing: the client asked to cancel a statement of another connection
	Greeting              // the upstream's greeting; see Protocol.ServerGreets
)

// An acceptor is the server's part of the exchange before TLS.
type acceptor interface {
	dialect

	// opening returns the result. It may be called once the acceptor is done.
	opening() Opening
}

// Accept answers the first messages of the client at conn until the client requests
// TLS. If optional is set, a client that does not request TLS continues in plaintext.
// Otherwise such a client learns that TLS is required. Accept stops when ctx ends,
// and owns the deadlines of conn until it returns. Its errors have a reason of
// package certs, and quote nothing that could be a password.
func (p Protocol) Accept(ctx context.Context, conn net.Conn, optional bool) (Opening, error) {
	switch p {
	case None:
		return Opening{}, nil
	case MySQL:
		return Opening{Next: Greeting}, nil
	}
	a := specs[p].server(optional)
	if err := run(ctx, conn, a); err != nil {
		return Opening{}, err
	}
	o := a.opening()
	if o.Next == TLS && len(o.Read) == 0 {
		first := new(firstRecord)
		if err := run(ctx, conn, first); err != nil {
			return Opening{}, err
		}
		o.Read = first.received
	}
	return o, nil
}

// firstRecord reads the beginning of the client's TLS handshake, after the gateway
// has agreed to start TLS. Any other bytes were inserted before the client had that
// answer.
type firstRecord struct{ received []byte }

func (r *firstRecord) start() []byte   { return nil }
func (r *firstRecord) waiting() string { return "the client: its TLS handshake" }

func (r *firstRecord) feed(in []byte) ([]byte, bool, error) {
	if in[0] != recordHandshake && in[0] < 0x80 { // 0x80: SSLv2, which the handshake rejects
		return nil, false, injectedPlaintext(len(in))
	}
	r.received = append(r.received, in...)
	return nil, true, nil
}

// Join prepares the server at conn for a client that Accept has answered. The client
// expects no greeting, so Join reads the server's greeting, unless Greet has read it
// and returned greeting. If the client has introduced itself in plaintext, Join
// introduces it to the server. Join returns the bytes that the client expects next,
// before any others from the server. It has the bounds and errors of Upgrade. For
// MySQL, Join greets and authenticates the context's client, unless Upgrade and
// Greet have done so.
func (p Protocol) Join(ctx context.Context, conn net.Conn, o Opening, greeting []byte) ([]byte, error) {
	if p == MySQL {
		return nil, joinMySQL(ctx, conn)
	}
	join := specs[p].join
	if join == nil {
		return nil, nil
	}
	s := join(o)
	if len(greeting) > 0 {
		s.steps = s.steps[1:]
	}
	if len(s.steps) > 0 {
		if err := run(ctx, conn, s); err != nil {
			return nil, err
		}
	}
	if s.greeting == nil || o.Next != TLS {
		return nil, nil
	}
	if len(greeting) > 0 {
		return greeting, nil
	}
	return s.greeting(), nil
}

// maxClientQuote bounds how much an error quotes of a client's first bytes: enough
// to recognize the protocol, too little for a password.
const maxClientQuote = 16

// wrongProtocol returns the error for a client that speaks another protocol.
func wrongProtocol(received []byte, protocol string) error {
	return refused("the client sent %s, which is not %s", quote(received[:min(len(received), maxClientQuote)]), protocol)
}

// injectedPlaintext returns the error for bytes between the client's request for TLS and
// the gateway's answer. Anyone on the path could have inserted them.
func injectedPlaintext(extra int) error {
	return &certs.VerifyError{
		Reason: certs.ReasonSTARTTLSInjection,
		Detail: fmt.Sprintf("the client sent plaintext after it had asked for TLS: %d bytes", extra),
	}
}

// endedBeforeTLS returns the error for a client that ends the session before it requests TLS.
func endedBeforeTLS(command string) error {
	return &certs.VerifyError{
		Reason: certs.ReasonPeerClosed,
		Detail: "the client ended the session with " + command + " and did not request TLS",
	}
}
