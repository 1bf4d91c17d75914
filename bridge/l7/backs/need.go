package backs

import (
	"context"
	"crypto/tls"
	"sync"
	"time"

	"github.com/drawbridge-gateway/drawbridge/bridge/accesslog"
	"github.com/drawbridge-gateway/drawbridge/bridge/proxyproto"
	"github.com/drawbridge-gateway/drawbridge/bridge/splice"
	"github.com/drawbridge-gateway/drawbridge/bridge/upstream"
)

// A Need describes the connection that a request needs.
type Need struct {
	Host    string         // the requested host, without brackets or port
	Client  *Client        // the client's connection
	Turn    *upstream.Turn // the request's way through the upstream
	Upgrade string         // the protocol that the request asks for; "" if none
	HasBody bool
	Fresh   bool // the connection must not have been used before

	// Avoid is the BackInfo.Carrier of the connection that refused the request's
	// last stream: another connection is used if one exists. Nil: no connection
	// refused the request.
	Avoid any

	// Splices provides the engine that watches the connection while an upload waits for
	// room. Nil: the upload waits itself.
	Splices *splice.Source

	// Login says whether the request logs in on its connection.
	Login Login

	// Context returns a context that ends when the request does. The caller
	// must call done.
	Context func() (ctx context.Context, done func())
}

// A Login says who may use the connection of a request that logs in with a scheme
// that authenticates the connection (NTLM, Negotiate). The upstream serves every
// later request on that connection as the same user.
type Login int

// The zero Login is NoLogin, for a request that does not log in.
const (
	NoLogin      Login = iota
	ClientLogin        // only the client's connection, until it ends
	RequestLogin       // only the request: its connection is not kept
)

// avoided returns the connection to avoid, or nil.
func (n *Need) avoided() *conn2 {
	c, _ := n.Avoid.(*conn2)
	return c
}

// BackInfo says how Get obtained a Back.
type BackInfo struct {
	Reused   bool            // the connection carried requests before
	Protocol string          // "HTTP/1.1" or "HTTP/2.0"
	Dial     *accesslog.Dial // the record of the dial, successful or not; nil: no dial was tried
	Carrier  any             // identifies an HTTP/2 connection, for Need.Avoid; nil for HTTP/1.1
}

// newDial returns the Dial of a connection, tc or plaintext, whose dial was
// recorded in t.
func newDial(t *upstream.Trace, tc *tls.Conn) *accesslog.Dial {
	m := &accesslog.Dial{At: time.Now(), Connect: t.Connect, Handshake: t.Handshake}
	if tc != nil {
		state := tc.ConnectionState()
		m.TLS = accesslog.Describe(&state)
	}
	return m
}

// A Client stands for a client's connection. It owns the upstream connections
// that carry only this client's requests, because they announce the client or the
// client logged in on them. They end with the client's connection.
type Client struct {
	Announced proxyproto.Announced // the addresses announced to upstreams

	mu    sync.Mutex
	pools map[*pool]bool
	ended bool
}

// add makes p one of the client's pools. It reports false if the client's
// connection has ended.
func (c *Client) add(p *pool) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ended {
		return false
	}
	if c.pools == nil {
		c.pools = make(map[*pool]bool)
	}
	c.pools[p] = true
	return true
}

func (c *Client) remove(p *pool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.pools, p)
}

// End closes the connections that belong to the client, once their requests
// have ended.
func (c *Client) End() {
	c.mu.Lock()
	pools := c.pools
	c.pools, c.ended = nil, true
	c.mu.Unlock()
	for p := range pools {
		p.back.hosts.drop(p)
	}
}
