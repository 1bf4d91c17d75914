package l7

import (
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/drawbridge-gateway/drawbridge/bridge/socket"
	"github.com/drawbridge-gateway/drawbridge/bridge/upstream"
)

// A pool has the connections to one endpoint, for one host if the upstream
// takes its server name from the request.
type pool struct {
	back     *Back
	endpoint *upstream.Endpoint
	host     string // what connections are dialled for; "" if all hosts share them

	// upgrades are HTTP/1.1's alone, so they need connections on which the
	// upstream could not choose HTTP/2. None is kept.
	upgrades *http.Transport

	mu      sync.Mutex
	retired bool        // a generation serves but one request
	current *generation // nil: the next request begins one
}

// A generation is the connections that a pool made in one span of time. A
// request that entered it is carried by one of them. Once it is retired no
// request enters, and its connections are closed as they become idle: net/http
// knows no other way to keep one connection, of those it has, from carrying
// another request.
type generation struct {
	pool     *pool
	requests *http.Transport
	age      *time.Timer // retires it; nil: never

	// Guarded by pool.mu.
	inFlight int
	retired  bool
	conns    map[net.Conn]bool // those open; true: HTTP/2. Nil once it has ended.
}

// enter returns the generation that is to carry a request, which must leave it.
func (p *pool) enter() *generation {
	p.mu.Lock()
	defer p.mu.Unlock()
	g := p.current
	if g == nil {
		g = &generation{pool: p, conns: make(map[net.Conn]bool)}
		g.requests = p.back.newRequests(g)
		if p.retired {
			g.retired = true
		} else {
			p.current = g
			if d := p.back.options.MaxAge; d > 0 {
				g.age = time.AfterFunc(d, g.retire)
			}
		}
	}
	g.inFlight++
	return g
}

// retire lets the generation there is end, and any later one after its request.
func (p *pool) retire() {
	p.mu.Lock()
	p.retired = true
	g := p.current
	p.mu.Unlock()
	if g != nil {
		g.retire()
	}
}

// leave says that a request and its response are over.
func (g *generation) leave() {
	p := g.pool
	p.mu.Lock()
	g.inFlight--
	empty := g.inFlight == 0 && len(g.conns) == 0
	p.mu.Unlock()
	g.tidy()
	if empty && p.back.hosts != nil {
		p.back.hosts.drop(p) // most likely a host that the upstream does not serve
	}
}

// retire lets the generation carry the requests that it has, and then end.
func (g *generation) retire() {
	p := g.pool
	p.mu.Lock()
	if g.age != nil {
		g.age.Stop()
	}
	g.retired = true
	if p.current == g {
		p.current = nil
	}
	p.mu.Unlock()
	g.tidy()
}

// tidy closes what a retired generation does not need any more.
func (g *generation) tidy() {
	p := g.pool
	p.mu.Lock()
	if !g.retired {
		p.mu.Unlock()
		return
	}
	if g.inFlight > 0 {
		idle := g.mayHaveIdle()
		p.mu.Unlock()
		if idle {
			g.requests.CloseIdleConnections()
		}
		return
	}
	left := g.conns
	g.conns = nil // and so none is added
	p.mu.Unlock()
	for c, http2 := range left {
		hangUp(c, http2)
	}
	g.requests.CloseIdleConnections()
}

// mayHaveIdle reports whether a connection may be idle although requests are
// in flight. The one HTTP/2 connection that they share is not; to close it as
// idle, between two of its streams, would only make net/http dial again. p.mu
// is held.
func (g *generation) mayHaveIdle() bool {
	if len(g.conns) != 1 {
		return true
	}
	for _, http2 := range g.conns {
		return !http2
	}
	return false
}

// add makes c one of the generation's until it is closed. It fails if the
// generation has ended: then nobody waits for c.
func (g *generation) add(c net.Conn) bool {
	http2 := g.pool.back.options.Protocol == HTTP2
	if tc, ok := c.(*tls.Conn); ok {
		http2 = tc.ConnectionState().NegotiatedProtocol == "h2"
	}
	g.pool.mu.Lock()
	ended := g.conns == nil
	if !ended {
		g.conns[c] = http2
	}
	g.pool.mu.Unlock()
	if ended {
		return false
	}
	socket.Of(c).OnClose(func() {
		g.pool.mu.Lock()
		defer g.pool.mu.Unlock()
		delete(g.conns, c)
	})
	return true
}

// goAway is a GOAWAY frame (RFC 9113, section 6.8) of a client that took no
// pushed stream and has met no error. net/http sends none.
const goAway = "\x00\x00\x08\x07\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"

// hangUp closes a connection that carries nothing, having said so.
func hangUp(c net.Conn, http2 bool) {
	if http2 {
		// It is idle, so there is room for it, unless the peer is stuck.
		_ = c.SetWriteDeadline(time.Now().Add(100 * time.Millisecond)) // fails only if it is closed
		if _, err := io.WriteString(c, goAway); err != nil {
			socket.Of(c).Reset()
			return
		}
	}
	c.Close()
}
