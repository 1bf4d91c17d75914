package backs

import (
	"cmp"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"sync/atomic"
	"time"

	"github.com/drawbridge-gateway/drawbridge/bridge/accesslog"
	"github.com/drawbridge-gateway/drawbridge/bridge/l7/http1"
	"github.com/drawbridge-gateway/drawbridge/bridge/l7/message"
	"github.com/drawbridge-gateway/drawbridge/bridge/l7/wire"
	"github.com/drawbridge-gateway/drawbridge/bridge/socket"
)

// A conn1 is an HTTP/1.1 connection to an endpoint. It is the Back of one request
// after another. While it is idle it holds no buffer, and no goroutine reads it.
type conn1 struct {
	pool      *pool
	nc        net.Conn // TLS, or sock
	sock      *socket.Socket
	in        wire.Reader
	out       wire.Writer
	createdAt time.Time

	login    bool            // the upstream requested a login: see Need.Login
	dialInfo *accesslog.Dial // set by carry

	// Guarded by pool.mu.
	idle    bool // in pool.idle
	retired bool // accepts no further request
	since   time.Time

	// The state of the request that the connection carries.
	request         request // the parts that the framing of the response depends on
	scan            http1.Scan
	response        http1.Response
	body            wire.Body
	used            bool        // the connection carried a request before, or was idle for a while
	requestPending  bool        // Receive must send the request; out holds all of it
	sent            bool        // the request is complete
	responseStarted bool        // some of the response arrived
	final           bool        // the final response head arrived
	aborted         atomic.Bool // the request was aborted, or the connection broke
	switched        atomic.Bool // the connection switched to another protocol
	ended           atomic.Bool // after switching, this side has ended its stream

	room roomWait
}

// request holds the parts of a request that the framing of its response depends
// on.
type request struct{ method string }

// uploadIdle is how long an upstream may stop reading a request, unless it has an
// idle timeout of its own. HTTP/2 connections have the same limit.
const uploadIdle = time.Minute

// A noResponseError is ErrNoResponse with the reason why the connection ended.
type noResponseError struct{ err error }

func (e *noResponseError) Error() string   { return wire.ErrNoResponse.Error() + ": " + e.err.Error() }
func (e *noResponseError) Unwrap() []error { return []error{wire.ErrNoResponse, e.err} }

// newConn1 returns a connection that is not yet dialed.
func newConn1(p *pool) *conn1 { return &conn1{pool: p, createdAt: time.Now()} }

// carry sets the connection to nc. m records how it was dialed.
func (c *conn1) carry(nc net.Conn, m *accesslog.Dial) {
	c.dialInfo = m
	buffers := &c.pool.back.buffers
	tc, _ := nc.(*tls.Conn)
	c.nc, c.sock = nc, socket.Of(nc)
	c.room.blocks = socket.RoomOf(c.sock).Raw() == nil
	c.sock.LimitWait(cmp.Or(c.pool.back.options.Upstream.IdleTimeout(), uploadIdle))
	c.in = wire.NewReader(c.sock, tc, buffers, nil)
	c.out = wire.NewWriter(nc, c.sock, buffers)
}

// reset makes c ready for another request.
func (c *conn1) reset() {
	c.request, c.body = request{}, wire.Body{}
	c.used, c.requestPending, c.sent, c.responseStarted, c.final = true, false, false, false, false
}

// Send begins the request.
func (c *conn1) Send(r *message.Request, end bool) error {
	c.request.method = r.Method
	framing := http1.Framing{Upgrade: r.Upgrade, Trailers: r.Trailers}
	switch {
	case !end && r.Length >= 0:
		framing.Body, framing.Length = http1.Sized, r.Length
	case !end:
		framing.Body = http1.InChunks
	case r.Method == "POST" || r.Method == "PUT" || r.Method == "PATCH":
		framing.Body = http1.Sized // length 0: servers expect a Content-Length
	}
	b, err := http1.AppendRequest(c.out.Begin(), r, framing)
	c.out.Keep(b)
	if err != nil {
		return err
	}
	if !end {
		c.out.Frame(framing)
		return nil
	}
	c.out.Frame(http1.Framing{}) // bytes written later belong to another protocol
	c.sent = true
	if c.used {
		c.requestPending = true // Receive sends it after checking that c is alive
		return nil
	}
	return c.out.Flush()
}

// Write sends bytes of the request's body. TryWrite sends them without a wait: see roomwait.go.
func (c *conn1) Write(p []byte) error { return c.out.WriteBody(p) }

// Flush sends buffered bytes.
func (c *conn1) Flush() error { return c.out.Flush() }

// End completes the request.
func (c *conn1) End(trailer message.Fields) error {
	err := c.out.EndBody(trailer)
	if c.switched.Load() {
		c.ended.Store(err == nil)
	} else {
		c.sent = err == nil
	}
	return err
}

// responseLimits bound an upstream's responses.
var responseLimits = http1.Limits{Head: 1 << 20, Fields: 10000, Trailer: 1 << 20}

// Receive waits for the next response head.
func (c *conn1) Receive(into *message.Response) error {
	c.in.AllowHandshake(true)
	defer c.in.AllowHandshake(false)
	if c.requestPending {
		c.requestPending = false
		err := c.in.Exchange(&c.out)
		if err == nil {
			err = c.in.More() // reads the decrypted bytes
		}
		err = withCause(c.sock, err)
		if errors.Is(err, wire.ErrStale) && !c.aborted.Swap(true) {
			c.sock.Reset() // Close alone might still send the request
		}
		if err != nil {
			return &noResponseError{err}
		}
		c.responseStarted = true
	}
	for {
		n, err := c.scan.ResponseEnd(c.in.Unread(), &responseLimits)
		if err != nil {
			return err
		}
		if n > 0 {
			return c.parse(n, into)
		}
		if err := withCause(c.sock, c.in.More()); err != nil {
			if !c.responseStarted {
				return &noResponseError{err}
			}
			return err
		}
		c.responseStarted = true
	}
}

// parse parses the head in the next n bytes.
func (c *conn1) parse(n int, into *message.Response) error {
	r := &c.response
	r.Fields = into.Fields // the slice is the caller's, and outlives c
	err := http1.ParseResponse(string(c.in.Unread()[:n]), c.request.method, &responseLimits, r)
	into.Fields = r.Fields
	if err != nil {
		return err
	}
	c.in.Consume(n)
	*into = r.Response
	into.Declared = r.Declared
	if into.Interim() {
		return nil
	}
	c.final = true
	if r.Switched {
		c.body.StartUntilEnd()
		c.switched.Store(true)
		return nil
	}
	c.body.Start(r.Length, r.Chunked, &responseLimits, &c.pool.back.decoders)
	return nil
}

// Read returns bytes of the response's body.
func (c *conn1) Read() ([]byte, error) {
	for {
		p, err := c.body.Next(&c.in)
		if len(p) > 0 || err != nil {
			return p, err
		}
		if err := c.in.More(); err != nil {
			switch {
			case err != io.EOF:
				return nil, withCause(c.sock, err)
			case !c.body.UntilEnd():
				return nil, io.ErrUnexpectedEOF
			}
			c.body.End()
		}
	}
}

// Buffered reports whether Read would not wait.
func (c *conn1) Buffered() bool { return c.body.Ready(&c.in) }

// Trailer returns the response's trailer.
func (c *conn1) Trailer() message.Fields { return c.body.Trailer() }

// Abort breaks the connection off.
func (c *conn1) Abort(error) {
	if !c.aborted.Swap(true) {
		if c.switched.Load() && !c.ended.Load() {
			c.sock.Reset() // only a reset shows that the request is incomplete
		} else {
			c.sock.Close()
		}
	}
}

// Done returns the connection to its pool, if it is clean.
func (c *conn1) Done() {
	clean := c.sent && c.final && c.body.Ended() && c.body.Err() == nil && !c.response.Close &&
		!c.aborted.Load() && c.out.Err() == nil && len(c.in.Unread()) == 0 && (!c.login || c.pool.private)
	c.body.Free(&c.pool.back.decoders)
	c.response = http1.Response{}
	c.in.Release()
	c.out.Drop()
	c.in.Charge(nil)
	if !clean {
		c.in.Drop()
		c.pool.discard(c)
		return
	}
	c.reset()
	c.pool.put(c)
}

// Reader returns the reader of the back's connection, and Writer the writer. Done ends a
// charge to a budget.
func (c *conn1) Reader() *wire.Reader { return &c.in }
func (c *conn1) Writer() *wire.Writer { return &c.out }

// NetConn returns the connection. Spliced is called when an engine has carried the
// upgraded connection to its end and closed it.
func (c *conn1) NetConn() net.Conn { return c.nc }
func (c *conn1) Spliced()          { c.aborted.Store(true) }

// TakesLogin records that the upstream requested a login on the connection. From then on
// only the client that received the request may use it.
func (c *conn1) TakesLogin() { c.login = true }

// LimitWait bounds how long a write waits while the peer reads nothing.
func (c *conn1) LimitWait(d time.Duration) { c.sock.LimitWait(d) }

// HasRoom reports that a small body can be sent without waiting, because nothing else
// is queued.
func (c *conn1) HasRoom() bool { return true }

// alive reports whether an idle connection can be used: the upstream has neither
// sent unsolicited bytes nor closed it.
func (c *conn1) alive() bool { return c.in.IsIdle() }

// close closes an idle connection.
func (c *conn1) close() {
	c.in.Drop()
	c.nc.Close()
}
