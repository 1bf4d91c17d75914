package l7

import (
	"strings"

	"github.com/drawbridge-gateway/drawbridge/bridge/l7/policy"
	"github.com/drawbridge-gateway/drawbridge/bridge/upstream"
)

// Logins that authenticate a connection (NTLM, Negotiate) and what keeps them
// apart: from the first 401 that asks for one, or the first request that tries
// one, a client's connection of HTTP/1 has upstream connections that nobody else
// uses, to one endpoint of each upstream, until it ends. Only so can the client
// finish a login that takes several requests.
//
// A client's connection that carries requests of several users cannot be tied to
// one login: that is so in HTTP/2, and behind a trusted proxy. There each request
// that logs in has an upstream connection for itself.

// logins are the endpoints at which a client's connection of HTTP/1 may be logged
// in. Only the exchange that the connection carries uses them.
type logins map[*Back]*upstream.Endpoint

// pool returns the pool whose connections may carry the exchange to an endpoint.
func (x *exchange) pool(e *upstream.Endpoint) *pool {
	host := strings.Trim(x.facts.Target.Host, "[]")
	switch {
	case x.conn.logins[x.back] == nil && !policy.SendsLogin(x.facts.Request.Fields):
		return x.back.pool(e, host, x.conn)
	case x.keepsLogin():
		x.expectLogin(e)
		return x.back.privatePool(e, host, x.conn)
	}
	return x.back.singlePool(e, host, x.conn)
}

// keepsLogin reports whether the client's connection can be tied to a login.
func (x *exchange) keepsLogin() bool { return x.facts.Request.Major == 1 && !x.facts.FromProxy() }

// expectLogin gives the client's connection upstream connections to e of its own,
// from the next request on.
func (x *exchange) expectLogin(e *upstream.Endpoint) {
	if x.conn.logins == nil {
		x.conn.logins = make(logins)
	}
	x.conn.logins[x.back] = e
}

// A loginCarrier is a back whose connection may be logged in.
type loginCarrier interface{ TakesLogin() }

// noteLogin sees to it that nobody else gets a connection on which a login was
// asked for.
func (x *exchange) noteLogin(b back) {
	if !policy.AsksLogin(x.response.Fields) {
		return
	}
	if c, ok := b.(loginCarrier); ok {
		c.TakesLogin()
	}
	if x.keepsLogin() {
		x.expectLogin(x.endpoint)
	}
}

// TakesLogin says that the connection's peer asked for a login: nobody but the
// client that was asked may use it.
func (c *conn1) TakesLogin() { c.login = true }
