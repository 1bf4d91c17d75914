package l7

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"syscall"
	"time"

	"github.com/drawbridge-gateway/drawbridge/bridge/upstream"
	"github.com/drawbridge-gateway/drawbridge/certs"
)

// maxDials bounds the connections made for one request. net/http dials again
// when a new HTTP/2 connection dies before it carried anything, without an
// end: as often as an upstream refuses our certificate.
const maxDials = 4

var errDials = errors.New("connections die before they carry a request")

// errEnded is told to nobody: it ends a dial that no request waits for any more.
var errEnded = errors.New("its requests are over")

// A dialer makes a transport's connections.
type dialer struct {
	pool       *pool
	generation *generation // nil: they are not kept
	purpose    upstream.Purpose
	want2      bool // HTTP/2 must be negotiated
	refuse2    bool // HTTP/2 must not be
}

func (d *dialer) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	x := exchangeOf(ctx)
	if x != nil && x.dials.Add(1) > maxDials {
		return nil, errDials
	}
	c, err := d.connect(ctx)
	if err != nil {
		return nil, err
	}
	tc, ok := c.(*tls.Conn)
	if ok && x != nil {
		x.dialled.Store(tc)
	}
	if err := d.check(tc); err != nil {
		c.Close()
		return nil, fmt.Errorf("endpoint %s: %w", d.pool.endpoint.Address(), err)
	}
	if d.generation != nil && !d.generation.add(c) {
		c.Close()
		return nil, errEnded
	}
	if d.generation != nil && d.pool.back.options.Protocol != HTTP2 && (tc == nil || tc.ConnectionState().NegotiatedProtocol != "h2") {
		return &kept{Conn: c}, nil // to net/http what is no *tls.Conn speaks HTTP/1
	}
	return c, nil
}

func (d *dialer) connect(ctx context.Context) (net.Conn, error) {
	if d.generation == nil {
		return d.pool.endpoint.DialAs(ctx, d.purpose, d.pool.host)
	}
	return d.pool.endpoint.DialPooled(ctx, d.purpose, d.pool.host, d.generation.retire)
}

// check reports what a connection lacks. tc is nil for plaintext, which
// net/http would take for TLS that somebody else has seen to.
func (d *dialer) check(tc *tls.Conn) error {
	if (tc != nil) != d.pool.back.options.TLS {
		return &certs.VerifyError{Reason: certs.ReasonLocalConfig, Detail: "the endpoint's TLS settings are not those of its upstream"}
	}
	if tc == nil {
		return nil
	}
	switch is2 := tc.ConnectionState().NegotiatedProtocol == "h2"; {
	case d.want2 && !is2:
		return &certs.VerifyError{Reason: certs.ReasonALPNMismatch, Detail: "the upstream did not negotiate HTTP/2 (h2 by ALPN)"}
	case d.refuse2 && is2:
		return &certs.VerifyError{Reason: certs.ReasonALPNMismatch, Detail: "the upstream negotiated HTTP/2 (h2 by ALPN) where HTTP/1.1 is needed; do not offer h2"}
	}
	return nil
}

// refusal returns why the connections of a request are dead, if that says more
// than err does. With TLS 1.3 an upstream judges our certificate when the
// handshake is over for us; its alert is then read by whichever of net/http's
// goroutines comes first, and not always part of what it returns. A tls.Conn
// keeps the alert and gives it to every later Read.
func (x *exchange) refusal(err error) error {
	if !saysDead(err) {
		return err
	}
	conns := []*tls.Conn{x.dialled.Load()}
	if shared := x.shared.Load(); shared != conns[0] && sharedIsDead(err) {
		conns = append(conns, shared)
	}
	for _, tc := range conns {
		if tc == nil {
			continue
		}
		_ = tc.SetReadDeadline(time.Now().Add(50 * time.Millisecond)) // fails only if it is closed, which is as good
		if _, late := tc.Read(make([]byte, 1)); late != nil {
			switch certs.Classify(late) {
			case certs.ReasonOther, certs.ReasonPeerClosed, certs.ReasonHandshakeTimeout, certs.ReasonConnectTimeout:
			default:
				return late
			}
		}
	}
	return err
}

// saysDead reports whether an error means that its connection is of no use to
// anybody, so that it may be read from.
func saysDead(err error) bool {
	for _, dead := range []error{errDials, syscall.EPIPE, syscall.ECONNRESET, net.ErrClosed, io.EOF, io.ErrUnexpectedEOF} {
		if errors.Is(err, dead) {
			return true
		}
	}
	return sharedIsDead(err) || strings.Contains(err.Error(), "http2: client conn is closed")
}

// sharedIsDead reports whether err means that the HTTP/2 connection a request
// was given, which may have been dialled for another, died before it carried
// anything. net/http exports no errors for that.
func sharedIsDead(err error) bool {
	return errors.Is(err, errDials) ||
		strings.Contains(err.Error(), "http2: client conn could not be established") ||
		strings.Contains(err.Error(), "http2: client connection force closed")
}
