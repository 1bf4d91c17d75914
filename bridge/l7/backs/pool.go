package backs

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"runtime/debug"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/drawbridge-gateway/drawbridge/bridge/accesslog"
	"github.com/drawbridge-gateway/drawbridge/bridge/l7/http2"
	"github.com/drawbridge-gateway/drawbridge/bridge/l7/message"
	"github.com/drawbridge-gateway/drawbridge/bridge/socket"
	"github.com/drawbridge-gateway/drawbridge/bridge/upstream"
	"github.com/drawbridge-gateway/drawbridge/certs"
)

// A pool holds the connections to one endpoint: for one host if the upstream takes
// its server name from the request, and for one client connection if clients are
// announced to the upstream.
type pool struct {
	back *Pools
	hostPool

	users atomic.Int64 // requests that use the pool

	mu             sync.Mutex
	retired        bool     // no connection is kept
	idle           []*conn1 // the most recently used is last
	reported       int      // how many idle connections were reported to the endpoint
	sweeper        *time.Timer
	sweepScheduled bool // sweeper is set
	sharedConns    sharedConns
}

// get returns the Back for a request: a reused connection, a new one, or a stream
// of a shared one.
func (p *pool) get(n *Need, given *BackInfo) (message.Back, error) {
	p.enter()
	b, err := p.find(n, given)
	if err != nil {
		p.leave()
	}
	if c, ok := b.(*conn1); ok {
		c.room.splices = n.Splices
	}
	return b, err
}

func (p *pool) find(n *Need, given *BackInfo) (message.Back, error) {
	if n.Upgrade != "" {
		return p.findUpgrade(n, given)
	}
	if p.mayShare() {
		stream, c, dial, err := p.share(n)
		if stream != nil {
			*given = BackInfo{Protocol: "HTTP/2.0", Dial: dial, Carrier: c}
			return shared{stream, c}, nil
		}
		if err != nil {
			*given = BackInfo{Dial: dial}
			return nil, err
		}
	}
	var spare any
	if !n.Fresh {
		if c := p.take(n.HasBody); c != nil {
			*given = BackInfo{Reused: c.used, Protocol: "HTTP/1.1", Dial: c.dialInfo}
			return c, nil
		}
		spare = p // do not close a connection that became idle meanwhile
	}
	c, dial, err := p.dial(n, false, spare)
	switch {
	case err == errChanged:
		return p.find(n, given)
	case err != nil:
		*given = BackInfo{Dial: dial}
		return nil, err
	}
	*given = BackInfo{Protocol: "HTTP/1.1", Dial: dial}
	return c, nil
}

// A shared is a stream of an HTTP/2 connection. It counts as a user of the
// connection's pool until Done.
type shared struct {
	*http2.ClientStream
	conn *conn2
}

// Receive calls ClientStream.Receive. Its error says why the gateway closed the
// connection.
func (s shared) Receive(into *message.Response) error {
	return withCause(s.conn.sock, s.ClientStream.Receive(into))
}

// Read calls ClientStream.Read. Its error says why the gateway closed the
// connection.
func (s shared) Read() ([]byte, error) {
	p, err := s.ClientStream.Read()
	if err != nil && err != io.EOF {
		err = withCause(s.conn.sock, err)
	}
	return p, err
}

// withCause adds to err the reason why the gateway closed the connection, if its
// peer no longer verified.
func withCause(sock *socket.Socket, err error) error {
	if err == nil {
		return nil
	}
	if invalid := sock.Invalid(); invalid != nil {
		return fmt.Errorf("%w: %w", invalid, err)
	}
	return err
}

// Done releases the stream.
func (s shared) Done() {
	s.ClientStream.Done()
	s.conn.pool.leave()
}

// TryFlush calls Flush, which never waits.
func (s shared) TryFlush() (done bool, err error) { return true, s.Flush() }

// ReportsRefusals reports that the upstream may say that it has not processed a request.
func (s shared) ReportsRefusals() bool { return true }

// freshTime is how long a connection that has carried nothing counts as new. If
// such a connection ends after a request was sent, it was not closed for being
// idle, and the request is not sent again.
const freshTime = time.Second

// take returns an idle connection, or nil. If look is set, take checks that the
// connection is alive; otherwise Receive does.
func (p *pool) take(look bool) *conn1 {
	for {
		p.mu.Lock()
		n := len(p.idle)
		if n == 0 {
			p.mu.Unlock()
			return nil
		}
		c := p.idle[n-1]
		p.idle[n-1] = nil
		p.idle = p.idle[:n-1]
		c.idle = false
		p.reportIdleLocked()
		p.mu.Unlock()
		if !c.used && time.Since(c.since) > freshTime {
			c.used = true // the upstream may have closed it meanwhile
		}
		if c.sock.Invalid() == nil && (!look || c.alive()) {
			return c
		}
		c.close()
	}
}

// A dialed is the result of a dial.
type dialed struct {
	conn *conn1
	dial *accesslog.Dial
	err  error
}

// dial opens an HTTP/1.1 connection for a request. For spare see connect.
//
// A separate goroutine dials, because a handshake needs a far larger stack than a request.
// The request's goroutine would keep that stack while it waits for the response.
func (p *pool) dial(n *Need, upgrade bool, spare any) (*conn1, *accesslog.Dial, error) {
	result := make(chan dialed, 1)
	go func() {
		d := dialed{err: atEndpoint(p.endpoint, errPanic)}
		defer func() {
			if v := recover(); v != nil {
				p.reportPanic(v)
			}
			result <- d
		}()
		d = p.dialHere(n, upgrade, spare)
	}()
	d := <-result
	return d.conn, d.dial, d.err
}

func (p *pool) dialHere(n *Need, upgrade bool, spare any) dialed {
	ctx, done := n.Context()
	defer done()
	ctx = upstream.WithTurn(ctx, n.Turn)
	c, c2 := newConn1(p), &conn2{pool: p}
	purpose, keeper := upstream.HTTP, upstream.Holder(holder{c, c2})
	if upgrade || p.private {
		// An upgrade needs a handshake in which the upstream cannot choose HTTP/2.
		purpose = upgradePurpose(p.back.options)
	}
	if upgrade {
		keeper, c.retired = upgraded{}, true
	}
	nc, dial, err := p.connect(ctx, purpose, keeper, spare)
	if err != nil {
		return dialed{nil, dial, err}
	}
	tc, secure := nc.(*tls.Conn)
	switch is2 := secure && tc.ConnectionState().NegotiatedProtocol == "h2"; {
	case is2 && (upgrade || p.private || p.back.options.Protocol == HTTP1):
		nc.Close()
		return dialed{nil, nil, atEndpoint(p.endpoint, errNotHTTP1)}
	case is2:
		c2.carry(nc, dial)
		p.finishDial(nil, 2, c2)
		return dialed{nil, nil, errChanged}
	}
	c.carry(nc, dial)
	return dialed{c, dial, nil}
}

// reportPanic logs a panic that occurred while connecting to the endpoint.
func (p *pool) reportPanic(value any) {
	p.back.options.Logger.Error("panic while connecting to an upstream", "upstream", p.back.options.Upstream.Name(), "panic", value, "stack", string(debug.Stack()))
}

var (
	errNotHTTP1 = &certs.VerifyError{Reason: certs.ReasonALPNMismatch, Detail: "the upstream negotiated HTTP/2 (h2 by ALPN) where HTTP/1.1 is needed; do not offer h2"}

	errPanic = errors.New("panic while connecting")

	// errChanged reports that the endpoint now chooses HTTP/2.
	errChanged = errors.New("the upstream negotiated HTTP/2 instead of HTTP/1.1")
)

// connect dials the endpoint and checks the negotiated protocol. It returns the
// record of the dial even if it fails. At the connection limit it closes an
// idle connection first, but never one of the pool spare.
func (p *pool) connect(ctx context.Context, purpose upstream.Purpose, keeper upstream.Holder, spare any) (nc net.Conn, m *accesslog.Dial, err error) {
	defer func() {
		if v := recover(); v != nil {
			p.reportPanic(v)
			nc, m, err = nil, new(accesslog.Dial), atEndpoint(p.endpoint, errPanic)
		}
	}()
	var trace upstream.Trace
	ctx = upstream.WithTrace(ctx, &trace)
	if p.client != nil && p.back.options.Upstream.Announces() {
		ctx = upstream.Announce(ctx, p.client.Announced.Source, p.client.Announced.Destination)
	}
	nc, err = p.endpoint.DialPooled(ctx, purpose, p.host, keeper)
	if err == upstream.ErrFull && p.endpoint.MakeRoom(spare) {
		nc, err = p.endpoint.DialPooled(ctx, purpose, p.host, keeper)
	}
	if err != nil {
		return nil, newDial(&trace, nil), err
	}
	tc, _ := nc.(*tls.Conn)
	m = newDial(&trace, tc)
	switch o := &p.back.options; {
	case (tc != nil) != o.TLS:
		err = &certs.VerifyError{Reason: certs.ReasonLocalConfig, Detail: "the endpoint's TLS settings differ from those of its upstream"}
	case tc != nil && o.Protocol == HTTP2 && purpose == upstream.HTTP && !p.isHTTP2(nc):
		err = &certs.VerifyError{Reason: certs.ReasonALPNMismatch, Detail: "the upstream did not negotiate HTTP/2 (h2 by ALPN)"}
	}
	if err != nil {
		nc.Close()
		return nil, m, atEndpoint(p.endpoint, err)
	}
	return nc, m, nil
}

// put returns a clean connection to the pool.
func (p *pool) put(c *conn1) {
	p.add(c)
	p.leave()
}

// add keeps a connection for the next request, if it may be kept.
func (p *pool) add(c *conn1) {
	now := time.Now()
	maxAge := p.back.options.MaxAge
	p.mu.Lock()
	keep := !p.retired && !c.retired && len(p.idle) < p.back.maxIdle() && (maxAge <= 0 || now.Sub(c.createdAt) < maxAge)
	if keep {
		c.idle, c.since = true, now
		p.idle = append(p.idle, c)
		p.sweepLocked(now)
		p.reportIdleLocked()
	}
	p.mu.Unlock()
	if !keep {
		c.close()
	}
}

// discard drops a connection that cannot carry another request.
func (p *pool) discard(c *conn1) {
	c.sock.Close()
	p.leave()
}

// enter and leave count the requests that use the pool.
func (p *pool) enter() { p.users.Add(1) }

func (p *pool) leave() {
	p.users.Add(-1)
	p.dropIfEmpty()
}

// dropIfEmpty drops a pool of one host that has no connections: most likely the
// upstream does not serve the host.
func (p *pool) dropIfEmpty() {
	if p.hostPool == (hostPool{endpoint: p.endpoint}) {
		return // this pool is kept as long as its endpoint
	}
	p.mu.Lock()
	empty := p.users.Load() == 0 && len(p.idle) == 0 && len(p.sharedConns.dials) == 0
	p.mu.Unlock()
	if empty {
		p.back.hosts.drop(p)
	}
}

// retire closes each connection when its requests have ended.
func (p *pool) retire() {
	p.mu.Lock()
	p.retired = true
	idle := p.idle
	p.idle = nil
	for _, c := range idle {
		c.idle = false
	}
	if p.sweeper != nil {
		p.sweeper.Stop()
	}
	p.sweepScheduled = false
	p.reportIdleLocked()
	shared := slices.Clone(p.sharedConns.conns)
	p.mu.Unlock()
	for _, c := range idle {
		c.close()
	}
	for _, c := range shared {
		c.retire()
	}
}

// retire closes c when its request has ended.
func (c *conn1) retire() {
	p := c.pool
	p.mu.Lock()
	c.retired = true
	was := c.idle
	if was {
		c.idle = false
		i := slices.Index(p.idle, c)
		p.idle = slices.Delete(p.idle, i, i+1)
		p.reportIdleLocked()
	}
	p.mu.Unlock()
	if was {
		c.close()
		p.dropIfEmpty()
	}
}

// lookEvery is how often idle connections are checked for a close by their
// peer.
const lookEvery = time.Second

// sweepLocked schedules the closing of idle connections. p.mu is held.
func (p *pool) sweepLocked(now time.Time) {
	if p.sweepScheduled || len(p.idle) == 0 {
		return
	}
	p.sweepScheduled = true
	next := now.Add(lookEvery)
	for _, c := range p.idle {
		if end := p.end(c); end.Before(next) {
			next = end
		}
	}
	wait := max(next.Sub(now), time.Millisecond)
	if p.sweeper == nil {
		p.sweeper = time.AfterFunc(wait, p.sweep)
	} else {
		p.sweeper.Reset(wait)
	}
}

// end returns the time at which to close an idle connection.
func (p *pool) end(c *conn1) time.Time {
	end := c.since.Add(cmp.Or(p.back.options.IdleTimeout, time.Minute))
	if d := p.back.options.MaxAge; d > 0 && c.createdAt.Add(d).Before(end) {
		return c.createdAt.Add(d)
	}
	return end
}

// sweep closes idle connections that have reached their time limit, and those
// that their peer has closed.
func (p *pool) sweep() {
	var closed []*conn1
	now := time.Now()
	p.mu.Lock()
	kept := p.idle[:0]
	for _, c := range p.idle {
		if now.Before(p.end(c)) && (now.Sub(c.since) < lookEvery || c.alive()) {
			kept = append(kept, c)
		} else {
			c.idle = false
			closed = append(closed, c)
		}
	}
	clear(p.idle[len(kept):])
	p.idle, p.sweepScheduled = kept, false
	p.sweepLocked(now)
	p.reportIdleLocked()
	p.mu.Unlock()
	for _, c := range closed {
		c.close()
	}
	if len(closed) > 0 {
		p.dropIfEmpty()
	}
}

// atEndpoint adds the endpoint's name to an error.
func atEndpoint(e *upstream.Endpoint, err error) error {
	return fmt.Errorf("endpoint %s: %w", e.Address(), err)
}
