package l7

import (
	"context"
	"crypto/tls"
	"errors"
	"strconv"
	"time"

	"github.com/drawbridge-gateway/drawbridge/bridge/accesslog"
	"github.com/drawbridge-gateway/drawbridge/bridge/l7/message"
	"github.com/drawbridge-gateway/drawbridge/bridge/upstream"
	"github.com/drawbridge-gateway/drawbridge/certs"
)

// What is noted of an exchange, for the access log and the histograms. Times are
// since its start.
type noted struct {
	attempts   int           // how often a connection was asked for
	got        time.Duration // when it had one last; 0: it took no time worth measuring
	head       time.Duration // from then until its response's head came; 0: none came
	made       *making       // of the connection it had last; nil: there is no access log
	protocol   string        // of that
	reused     bool          // it was there before
	upgraded   bool
	ended      string       // how an upgraded one did
	reason     certs.Reason // of what failed upstream
	grpc       int          // status, of who takes one
	userAgent  string
	queued     time.Duration
	connect    time.Duration // by all attempts together
	handshake  time.Duration // likewise
	fromClient uint64        // bytes of bodies
	toClient   uint64
}

// A making is how a connection to an endpoint was made, or was tried to be. It
// is immutable.
type making struct {
	at                 time.Time // when it was done
	connect, handshake time.Duration
	tls                *accesslog.TLS // nil: plaintext
}

// newMaking returns that of a connection, tc or plaintext, of which t has been
// told.
func newMaking(t *upstream.Trace, tc *tls.Conn) *making {
	m := &making{at: time.Now(), connect: t.Connect, handshake: t.Handshake}
	if tc != nil {
		state := tc.ConnectionState()
		m.tls = accesslog.Describe(&state)
	}
	return m
}

// dialled adds what was waited for a connection to be made.
func (n *noted) dialled(m *making) {
	n.connect += m.connect
	n.handshake += m.handshake
}

// asks notes that a connection is asked for. It returns when, if anybody wants to
// know.
func (x *exchange) asks() time.Duration {
	x.noted.attempts++
	if x.server.options.AccessLog == nil {
		return 0
	}
	return time.Since(x.start)
}

// given notes what the exchange was given, which was asked for at some time.
func (x *exchange) given(b back, reused bool, asked time.Duration) {
	n := &x.noted
	if !reused || n.attempts > 1 || n.queued > 0 {
		n.got = time.Since(x.start)
	}
	if x.server.options.AccessLog == nil {
		return
	}
	switch b := b.(type) {
	case *conn1:
		n.made, n.protocol = b.making, "HTTP/1.1"
	case shared:
		n.made, n.protocol = b.conn.making, "HTTP/2.0"
	case *connecting:
		n.made, n.protocol = b.conn.making, "HTTP/2.0"
	default:
		return
	}
	m := n.made
	n.reused = m.at.Sub(x.start) < asked
	if !n.reused {
		n.dialled(m)
	}
}

// noteHead notes that the response's head has come.
func (x *exchange) noteHead() {
	x.noted.head = time.Since(x.start) - x.noted.got
	x.endpoint.NoteHead(x.noted.head)
}

// noteGRPC notes the status of a call, if these are the fields that have it.
func (x *exchange) noteGRPC(f message.Fields) {
	if !x.grpc {
		return
	}
	if text, ok := f.Get("Grpc-Status"); ok {
		if code, err := strconv.ParseUint(text, 10, 16); err == nil {
			x.noted.grpc = int(code)
		}
	}
}

// queue is context for the wait for an endpoint, which is timed.
func (x *exchange) queue() (ctx context.Context, done func()) {
	begun := time.Now()
	ctx, over := x.context()
	return ctx, func() {
		over()
		x.noted.queued += time.Since(begun)
	}
}

// reasonOf returns the reason of a request's failure.
func reasonOf(err error) certs.Reason {
	if errors.Is(err, errDeadline) || errors.Is(err, errTooLong) || errors.Is(err, errTryDeadline) || errors.Is(err, errCallDeadline) {
		return certs.ReasonResponseTimeout
	}
	reason := upstream.ReasonOf(err)
	if isUnsent(err) {
		return reason
	}
	// There was a connection. The words for failures to make one say nothing any
	// more, but for what was said in TLS: an alert can still refuse us.
	switch reason {
	case certs.ReasonPeerClosed, certs.ReasonNotTLS, certs.ReasonOther:
		return certs.ReasonResponseBroken
	case certs.ReasonConnectTimeout, certs.ReasonHandshakeTimeout:
		return certs.ReasonResponseTimeout
	}
	return reason
}
