package l7

import (
	"bytes"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"os"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/drawbridge-gateway/drawbridge/bridge/l7/exchange"
	"github.com/drawbridge-gateway/drawbridge/bridge/l7/http1"
	"github.com/drawbridge-gateway/drawbridge/bridge/l7/message"
	"github.com/drawbridge-gateway/drawbridge/bridge/l7/policy"
	"github.com/drawbridge-gateway/drawbridge/bridge/l7/wire"
	"github.com/drawbridge-gateway/drawbridge/bridge/socket"
)

// A front1 serves a client's HTTP/1.x connection: one request after another, on
// one goroutine. It is the front of each exchange in turn. While it waits for
// the next request, it holds no memory that only a request needs.
type front1 struct {
	server *Server
	conn   *conn
	sock   *socket.Socket
	tls    *tls.Conn // nil: plaintext
	nc     net.Conn  // tls, or sock
	in     wire.Reader
	out    wire.Writer

	table         *Table // the table of the current request
	settings      settings
	began         int64  // when the connection began, by the server's clock
	age           int64  // maximum age of the connection; 0: no limit
	requests      int    // requests so far
	idleSince     int64  // when the wait for the next request began; 0: not waiting
	lastWaitShort bool   // the last wait was short, so the next may be too
	neverPark     bool   // parking failed and is not tried again
	request       *head1 // nil between requests
	body          wire.Body
	whole         atomic.Bool // all of the body arrived and was consumed
	refused       atomic.Bool // the rest of the body is not needed
	aborted       atomic.Bool
	waited        time.Duration // time spent waiting for the body
	taken         int64         // bytes of the body

	// These fields describe the response.
	keep   bool        // the connection accepts another request
	ended  bool        // all of the response was written
	framed atomic.Bool // the response's head was written with its framing

	early []byte // the first bytes, if the connection turned out to be HTTP/2, else nil
}

// headPool lends heads of requests.
type headPool struct{ pool sync.Pool }

func (p *headPool) get() *head1 {
	if h, ok := p.pool.Get().(*head1); ok {
		return h
	}
	return new(head1)
}

func (p *headPool) put(h *head1) { p.pool.Put(h) }

// A head1 is the head of an HTTP/1 request, and the state of its parsing.
type head1 struct {
	http1.Request
	scan http1.Scan
}

var (
	errPark    = errors.New("the connection waits long enough to be parked")
	errNoMore  = errors.New("no further request may begin")
	errRefused = errors.New("the rest of the body is not needed")
	errAborted = errors.New("the response was aborted")
)

func newFront1(s *Server, c *conn, tc *tls.Conn, st settings) *front1 {
	f := &front1{server: s, conn: c, sock: c.sock, tls: tc, nc: c.sock, settings: st,
		began: s.clock.now.Load(), age: int64(st.age())}
	if tc != nil {
		f.nc = tc
	}
	f.in = wire.NewReader(f.sock, tc, &s.buffers, &s.counters.fromClient)
	f.out = wire.NewWriter(f.nc, f.sock, &s.buffers)
	return f
}

// serve serves the connection until it ends or is parked. When bytes arrive on a
// parked connection, perhaps at once, another goroutine serves f again, so the caller
// must not use f afterward.
func (f *front1) serve() {
	for {
		next := f.carry()
		if next == tunnels || next == parks && f.conn.park(f.serve) {
			return
		}
		if next == ends {
			break
		}
		f.neverPark = true
	}
	if f.early != nil {
		newFront2(f.server, f.conn, f.sock, f.early, f.settings).serve()
		return
	}
	f.server.intake.Done()
}

// A next is the next state of a connection.
type next int

const (
	ends    next = iota
	parks        // it waits for a request without a goroutine
	tunnels      // it was upgraded: an engine owns it, and tunnelEnded is called at its end
	serves       // another request may follow
)

// carry serves requests until the connection ends, must be parked, or was upgraded. In
// the last case f must not be used afterward.
func (f *front1) carry() (next next) {
	defer func() {
		if p := recover(); p != nil {
			f.server.log.Error("panic while serving a request", "panic", p, "stack", string(debug.Stack()))
			f.Abort(errPanic)
		}
		if next == ends {
			f.close()
		}
	}()
	err := f.await()
	for err == nil {
		if next = f.serveOne(); next == tunnels {
			return tunnels
		}
		if next == ends {
			break
		}
		err = f.await()
	}
	if err == errPark {
		return parks
	}
	if f.ended && !f.aborted.Load() {
		f.linger()
	}
	return ends
}

// tunnelEnded is called when an engine has carried the upgraded connection to its end.
func (f *front1) tunnelEnded() {
	f.release()
	f.close()
	f.server.intake.Done()
}

// close closes the connection, if it is still open.
func (f *front1) close() {
	f.in.Drop()
	f.out.Drop()
	if f.early == nil {
		f.sock.Close()
	}
}

// parkAfter is how long a connection waits for a request before it is parked.
const parkAfter = time.Second

// await waits for a request to begin. It fails with errPark if the connection
// must be parked; the next call resumes the wait. After any other error no
// further request arrives.
func (f *front1) await() error {
	f.refused.Store(false) // a new request has a new body
	if len(f.in.Unread()) > 0 {
		return nil // the request arrived with the previous one
	}
	c, clock := f.conn, &f.server.clock
	got, begins := false, f.idleSince == 0
	if begins {
		d := f.settings.idleTimeout
		if f.requests == 0 {
			d = f.settings.headerReadTimeout
		}
		f.idleSince = clock.now.Load()
		if f.age > 0 {
			d = min(d, time.Duration(f.began+f.age-f.idleSince))
		}
		if d <= 0 || f.requests > 0 && !c.markIdle() {
			return errNoMore
		}
		c.deadline.Store(clock.after(d))
	}
	var err error
	if begins && f.requests > 0 && !f.lastWaitShort && !f.neverPark {
		if got, err = f.in.Try(); !got && err == nil {
			f.in.Shrink()
			return errPark
		}
	}
	if !got && err == nil {
		if !f.neverPark {
			c.parkAt.Store(clock.after(parkAfter))
		}
		err = f.waitUntil(c.deadline.Load())
		c.parkAt.Store(0)
		if err == errPark {
			return err
		}
	}
	c.deadline.Store(0)
	f.lastWaitShort = f.requests > 0 && clock.now.Load()-f.idleSince < int64(parkAfter)
	f.idleSince = 0
	if !c.wake() {
		return errNoMore
	}
	return err
}

// adopt sets the connection's settings to st.
func (f *front1) adopt(st settings) {
	if f.settings != st {
		if f.settings.maxAge != st.maxAge {
			f.age = int64(st.age())
		}
		f.settings = st
		f.conn.adopt(st)
	}
}

// serveOne serves one request, and returns the next state of the connection.
func (f *front1) serveOne() (next next) {
	f.table = f.server.options.Table()
	f.adopt(f.table.settings())
	f.request = f.server.heads.get()
	f.keep, f.ended, f.waited, f.taken = false, false, 0, 0
	f.framed.Store(false)
	f.whole.Store(false)
	defer func() {
		if next != tunnels {
			f.release()
		}
	}()
	limits := http1.Limits{Head: f.settings.maxHeaderBytes, Target: f.settings.maxHeaderBytes, Fields: f.settings.maxHeaderFields}
	if err := f.head(&limits); err != nil {
		if err == http1.ErrPreface && f.requests == 0 && f.tls == nil {
			f.early = bytes.Clone(f.in.Unread())
		} else {
			f.badHead(err)
		}
		return ends
	}
	r := f.request
	f.requests++
	f.body.Start(r.Length, r.Chunked, &limits, &f.server.decoders)
	f.whole.Store(f.body.Ended())
	if f.server.handle(f, &r.Request.Request, f.conn, f.table) {
		return tunnels
	}
	if f.keep && f.ended && f.whole.Load() && !f.aborted.Load() {
		return serves
	}
	return ends
}

// release releases the resources of the request.
func (f *front1) release() {
	f.body.Free(&f.server.decoders)
	fields := f.request.Fields
	clear(fields[:cap(fields)])
	*f.request = head1{Request: http1.Request{Request: message.Request{Fields: fields[:0]}}}
	f.server.heads.put(f.request)
	f.request, f.table = nil, nil
	f.in.Release()
}

// head reads and parses the head of a request.
func (f *front1) head(limits *http1.Limits) error {
	r, begun := f.request, f.server.clock.now.Load()
	for {
		n, err := r.scan.RequestEnd(f.in.Unread(), limits)
		if err != nil {
			return err
		}
		if n > 0 {
			// This string contains all of the head.
			if err := http1.ParseRequest(string(f.in.Unread()[:n]), limits, &r.Request); err != nil {
				return err
			}
			f.in.Consume(n)
			return nil
		}
		// The time limit of the head starts at its first byte.
		spent := time.Duration(f.server.clock.now.Load() - begun)
		if err := f.wait(max(f.settings.headerReadTimeout-spent, 1)); err != nil {
			return err
		}
	}
}

// badHead answers a request that cannot be read, if the client is still connected.
func (f *front1) badHead(err error) {
	var refused *http1.Error
	status := 0
	switch {
	case errors.As(err, &refused):
		status = refused.Status
	case errors.Is(err, os.ErrDeadlineExceeded):
		status = policy.RequestTimeout.Code
	default:
		return // the client has gone
	}
	f.server.log.Debug("request refused", "client", f.conn.facts.Client, "error", policy.Printable(err))
	f.request.Request = http1.Request{Request: message.Request{Fields: f.request.Fields[:0], Major: 1, Minor: 1}}
	f.body.Fail(err) // the start of the next request is unknown
	f.server.refuse(f, &f.request.Request.Request, f.conn, policy.Rejection(status))
}

// wait waits up to d for more bytes from the client; 0: without limit.
func (f *front1) wait(d time.Duration) error {
	until := f.server.clock.after(d)
	f.conn.deadline.Store(until)
	err := f.waitUntil(until)
	f.conn.deadline.Store(0)
	return err
}

// waitUntil is wait until a time of the clock, the connection's deadline; 0: no
// limit. It fails with errPark once it is time to park the connection.
func (f *front1) waitUntil(until int64) error {
	clock := &f.server.clock
	for {
		err := f.in.More()
		if err == nil || !errors.Is(err, os.ErrDeadlineExceeded) || f.refused.Load() || until != 0 && clock.now.Load() > until {
			return err
		}
		_ = f.conn.Conn.SetReadDeadline(time.Time{}) // fails only on a closed connection, and then reading fails too
		if park := f.conn.parkAt.Load(); park != 0 && clock.now.Load() > park {
			return errPark
		}
		// Otherwise the deadline belonged to an earlier wait that ended at the same
		// moment.
	}
}

// minRate is how many bytes of a request's body a client must send per second while
// the gateway waits for them, once idleTimeout is used up. A client that sends a byte
// now and then cannot hold an upstream forever.
const minRate = 500

// Read implements exchange.Front.
func (f *front1) Read() ([]byte, error) {
	for {
		p, err := f.body.Next(&f.in)
		if f.body.Ended() {
			f.whole.Store(true)
		}
		if len(p) > 0 || err != nil {
			f.taken += int64(len(p))
			return p, err
		}
		if f.refused.Load() {
			return nil, errRefused
		}
		if err := f.awaitBody(); err != nil {
			return nil, err
		}
	}
}

// awaitBody waits for more of the body.
func (f *front1) awaitBody() error {
	if f.body.UntilEnd() { // the stream of an upgraded connection
		err := f.wait(0)
		if err == io.EOF {
			f.body.End()
			return nil
		}
		return err
	}
	left := f.settings.idleTimeout - f.waited + time.Duration(f.taken)*time.Second/minRate
	if left <= 0 {
		return os.ErrDeadlineExceeded
	}
	begun := f.server.clock.now.Load()
	err := f.wait(min(left, f.settings.idleTimeout))
	f.waited += time.Duration(f.server.clock.now.Load() - begun)
	switch {
	case f.refused.Load():
		return errRefused
	case err == io.EOF:
		return io.ErrUnexpectedEOF
	}
	return err
}

// Buffered implements exchange.Front.
func (f *front1) Buffered() bool {
	ready := f.body.Ready(&f.in)
	if f.body.Ended() {
		f.whole.Store(true)
	}
	return ready
}

// Arrived implements exchange's arrivalChecker.
func (f *front1) Arrived() bool { return f.in.Arrived() }

// Trailer implements exchange.Front.
func (f *front1) Trailer() message.Fields { return f.body.Trailer() }

// Refuse implements exchange.Front.
func (f *front1) Refuse() {
	if !f.whole.Load() {
		f.refused.Store(true)
		_ = f.conn.Conn.SetReadDeadline(longAgo) // fails only on a closed connection, and then reading fails too
	}
}

// Whole reports whether the rest of the body has arrived and is small.
func (f *front1) Whole() bool {
	return f.body.Arrived(&f.in, exchange.MaxInline)
}

// SkipBody skips the short rest of an unread body, so that the connection can be
// kept. No other goroutine may be reading.
func (f *front1) SkipBody() {
	if f.Whole() {
		f.body.Skip(&f.in)
		f.whole.Store(true)
	}
}

// Reader returns the reader of the front's connection, and Writer the writer.
func (f *front1) Reader() *wire.Reader { return &f.in }
func (f *front1) Writer() *wire.Writer { return &f.out }

// LimitWait bounds how long a write waits while the client reads nothing.
func (f *front1) LimitWait(d time.Duration) { f.conn.direct.LimitWait(d) }

// NetConn returns the connection. Spliced is called when an engine has carried the
// upgraded connection to its end and closed it.
func (f *front1) NetConn() net.Conn { return f.nc }
func (f *front1) Spliced()          { f.aborted.Store(true) }

// Notify implements exchange.Front.
func (f *front1) Notify(gone func(cause error)) { f.conn.notify(gone) }
