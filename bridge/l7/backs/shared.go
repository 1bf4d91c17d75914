package backs

import (
	"cmp"
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"slices"
	"sync"

	"github.com/drawbridge-gateway/drawbridge/bridge/accesslog"
	"github.com/drawbridge-gateway/drawbridge/bridge/l7/http2"
	"github.com/drawbridge-gateway/drawbridge/bridge/l7/message"
	"github.com/drawbridge-gateway/drawbridge/bridge/l7/wire"
	"github.com/drawbridge-gateway/drawbridge/bridge/socket"
	"github.com/drawbridge-gateway/drawbridge/bridge/upstream"
)

// A sharedConns is the part of a pool that holds HTTP/2 connections, which many
// requests share. All of it is guarded by the pool's mu.
type sharedConns struct {
	version  int        // the HTTP version that the endpoint chose last; 0: unknown
	conns    []*conn2   // connections that may take further requests
	dials    []*dialing // dials in progress
	waiting  int        // requests that wait for a stream
	freed    chan struct{}
	capacity int // presumed stream limit of a connection
	reported int // how many connections with room were reported to the endpoint

	noWebSocket bool // the newest connection accepts no WebSocket
}

// A conn2 is an HTTP/2 connection to an endpoint.
type conn2 struct {
	pool     *pool
	dialInfo *accesslog.Dial // set by carry
	sock     *socket.Socket  // set by carry

	mu      sync.Mutex
	http    *http2.ClientConn // nil until it is connected
	retired bool
}

// A dialing is a dial in progress, for which several requests may wait.
type dialing struct {
	cancel   context.CancelFunc
	waiters  int // guarded by the pool's mu
	done     chan struct{}
	dialInfo *accesslog.Dial // valid once done is closed
	err      error           // valid once done is closed
}

// presumedStreams is the presumed stream limit of a connection until its peer
// has sent the real one.
const presumedStreams = 100

// mayShare reports whether the endpoint may speak HTTP/2.
func (p *pool) mayShare() bool {
	switch o := &p.back.options; {
	case o.Protocol == HTTP1 || o.Protocol == Auto && (!o.TLS || p.private):
		return false
	case o.Protocol == HTTP2:
		return true
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.sharedConns.version != 1
}

// share returns a stream for a request, and its connection: an existing one, or one
// that is dialed for all waiting requests. It avoids the connection that refused the
// request, if it can. It returns neither if the endpoint chooses HTTP/1.1. It also
// returns the record of the dial, successful or not.
func (p *pool) share(n *Need) (*http2.ClientStream, *conn2, *accesslog.Dial, error) {
	if stream, c := p.open(n.avoided()); stream != nil {
		return stream, c, c.dialInfo, nil // needs no context, which would cost as much as the stream
	}
	ctx, done := n.Context()
	defer done()
	return p.awaitShared(ctx, n.avoided())
}

// open opens a stream, if a connection has room for one now.
func (p *pool) open(refuser *conn2) (*http2.ClientStream, *conn2) {
	p.mu.Lock()
	defer p.mu.Unlock()
	stream, c := p.openLocked(refuser)
	p.reportSharedLocked()
	return stream, c
}

// awaitShared is share for a request that has to wait for a connection.
func (p *pool) awaitShared(ctx context.Context, refuser *conn2) (*http2.ClientStream, *conn2, *accesslog.Dial, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := &p.sharedConns
	for {
		stream, c := p.openLocked(refuser)
		p.reportSharedLocked()
		if stream != nil {
			return stream, c, c.dialInfo, nil
		}
		if s.version == 1 && p.back.options.Protocol != HTTP2 {
			return nil, nil, nil, nil
		}
		if p.closedLocked() {
			return nil, nil, new(accesslog.Dial), atEndpoint(p.endpoint, errNoStreams)
		}
		d := p.dialingLocked()
		if s.freed == nil {
			s.freed = make(chan struct{})
		}
		freed := s.freed
		d.waiters++
		s.waiting++
		p.reportSharedLocked()
		p.mu.Unlock()
		select {
		case <-d.done:
		case <-freed:
		case <-ctx.Done():
		}
		p.mu.Lock()
		d.waiters--
		s.waiting--
		p.reportSharedLocked()
		if ctx.Err() != nil {
			if d.waiters == 0 {
				d.cancel() // nothing waits for the connection, and no other request may join
				s.dials = slices.DeleteFunc(s.dials, func(other *dialing) bool { return other == d })
				p.releaseLocked()
			}
			return nil, nil, new(accesslog.Dial), ctx.Err()
		}
		select {
		case <-d.done:
			if d.err != nil {
				return nil, nil, d.dialInfo, d.err
			}
		default:
		}
	}
}

// releaseLocked closes the connections of a pool that keeps no idle ones: the
// request that they were dialed for has left, so nothing else would close them.
// p.mu is held.
func (p *pool) releaseLocked() {
	if !p.retired {
		return
	}
	for _, c := range p.sharedConns.conns {
		go c.retire() // in a goroutine, because retire takes p.mu
	}
}

// errNoStreams reports an upstream that allows no request. Another connection
// would allow no request either, so the pool does not dial one.
var errNoStreams = fmt.Errorf("%w: %w", message.ErrNoStreams, upstream.ErrOverloaded)

// maxClosed is how many connections without room for any stream are kept to an
// endpoint. The first may be an old one that the server drains this way.
const maxClosed = 2

// closedLocked reports whether the endpoint accepts no streams, as far as its
// connections show. It may accept streams later, so the connections are kept
// until they have been idle for long. p.mu is held.
func (p *pool) closedLocked() bool {
	closed := 0
	for _, c := range p.sharedConns.conns {
		if c.http.Closed() {
			closed++
		}
	}
	return closed >= maxClosed
}

// openLocked opens a stream on a connection with room for one. It avoids the
// connection refuser, which may be nil, unless the pool has other connections
// without room. Then one more connection would hardly help. p.mu is held.
func (p *pool) openLocked(refuser *conn2) (*http2.ClientStream, *conn2) {
	s := &p.sharedConns
	for _, c := range s.conns {
		if c != refuser {
			if stream := p.openOnLocked(c); stream != nil {
				return stream, c
			}
		}
	}
	if len(s.conns) < 2 || !slices.Contains(s.conns, refuser) {
		return nil, nil
	}
	return p.openOnLocked(refuser), refuser
}

func (p *pool) openOnLocked(c *conn2) *http2.ClientStream {
	if c.sock.Invalid() != nil {
		return nil // c is being retired
	}
	stream := c.http.Open()
	if stream != nil && p.retired {
		go c.retire() // when the requests that waited for it have ended
	}
	return stream
}

// dialingLocked returns a dial in progress whose connection will have room for
// one more request. p.mu is held.
func (p *pool) dialingLocked() *dialing {
	s, room := &p.sharedConns, p.roomLocked()
	for _, d := range s.dials {
		if d.waiters < room {
			return d
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	d := &dialing{cancel: cancel, done: make(chan struct{})}
	s.dials = append(s.dials, d)
	go p.dialShared(ctx, d)
	return d
}

// roomLocked returns for how many requests a new connection will presumably
// have room. p.mu is held.
func (p *pool) roomLocked() int {
	if p.sharedConns.version == 0 && p.back.options.Protocol != HTTP2 {
		return 1 << 30 // the version is not yet known, so all requests wait for it
	}
	return cmp.Or(p.sharedConns.capacity, presumedStreams)
}

// dialShared dials a connection and keeps it for any request.
func (p *pool) dialShared(ctx context.Context, d *dialing) {
	defer d.cancel()
	c1, c2 := newConn1(p), &conn2{pool: p}
	nc, m, err := p.connect(ctx, upstream.HTTP, holder{c1, c2}, p)
	d.dialInfo = m
	if err == nil && !p.isHTTP2(nc) {
		p.finishDial(d, 1, nil)
		c1.carry(nc, m)
		p.add(c1)
		close(d.done)
		return
	}
	if err == nil {
		c2.carry(nc, m)
		p.finishDial(d, 2, c2)
	} else {
		p.finishDial(d, 0, nil)
	}
	d.err = err
	close(d.done)
	p.mu.Lock()
	unwanted := p.retired && d.waiters == 0
	p.mu.Unlock()
	if unwanted {
		c2.retire()
	}
}

// isHTTP2 reports whether a connection's protocol is HTTP/2.
func (p *pool) isHTTP2(nc net.Conn) bool {
	if tc, ok := nc.(*tls.Conn); ok {
		return tc.ConnectionState().NegotiatedProtocol == "h2"
	}
	return p.back.options.Protocol == HTTP2
}

// finishDial ends a dialing that negotiated a version of HTTP (0: it failed).
// With version 2, it adds the connection.
func (p *pool) finishDial(d *dialing, version int, c *conn2) {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := &p.sharedConns
	s.dials = slices.DeleteFunc(s.dials, func(other *dialing) bool { return other == d })
	if version != 0 {
		s.version = version
	}
	if c != nil {
		s.conns = append(s.conns, c)
		s.noWebSocket = false // its settings have not arrived yet
	}
	p.reportSharedLocked()
}

// changed is called when a connection may have room, or will never have room
// again.
func (p *pool) changed() {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := &p.sharedConns
	if s.waiting > 0 && s.freed != nil {
		close(s.freed)
		s.freed = nil
	}
	s.conns = slices.DeleteFunc(s.conns, func(c *conn2) bool { return !c.http.CanOpen() })
	p.reportSharedLocked()
}

// carry sets the connection to nc. m records how it was dialed.
func (c *conn2) carry(nc net.Conn, m *accesslog.Dial) {
	c.dialInfo, c.sock = m, socket.Of(nc)
	o := &c.pool.back.options
	h := http2.NewClientConn(wire.NewStream(nc, &c.pool.back.buffers, nil), http2.Options{
		MaxHeaderBytes: responseLimits.Head,
		MaxFields:      responseLimits.Fields,
		IdleTimeout:    o.IdleTimeout,
		MaxAge:         o.MaxAge,
		Changed:        c.pool.changed,
		Panicked: func(value any, stack []byte) {
			o.Logger.Error("panic while serving an upstream's connection", "upstream", o.Upstream.Name(), "panic", value, "stack", string(stack))
		},
	})
	c.mu.Lock()
	c.http = h
	retired := c.retired
	c.mu.Unlock()
	c.pool.enter()
	go func() {
		defer c.pool.leave()
		_ = h.Run() // its streams report its failure
	}()
	if retired {
		h.Retire()
	}
}

// retire closes c when its requests have ended.
func (c *conn2) retire() {
	c.mu.Lock()
	c.retired = true
	h := c.http
	c.mu.Unlock()
	if h != nil {
		h.Retire()
	}
}
