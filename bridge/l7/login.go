package l7

import (
	"github.com/drawbridge-gateway/drawbridge/bridge/l7/backs"
	"github.com/drawbridge-gateway/drawbridge/bridge/l7/policy"
	"github.com/drawbridge-gateway/drawbridge/bridge/upstream"
)

// Logins that authenticate a connection (NTLM, Negotiate) are kept apart. From the
// first 401 that asks for such a login, or the first request that tries one, a
// client's HTTP/1 connection has its own upstream connections, to one endpoint of
// each upstream, until it ends. Otherwise a client could not finish a login that
// takes several requests.
//
// A client's connection that carries requests of several users, such as with
// HTTP/2 or behind a trusted proxy, cannot be tied to one login. There each
// request that logs in gets its own upstream connection.

// logins are the endpoints at which a client's HTTP/1 connection may be logged
// in. Only the request in progress on the connection uses them.
type logins map[*backs.Pools]*upstream.Endpoint

// login returns how the request logs in at an endpoint.
func (q *request) login(e *upstream.Endpoint) backs.Login {
	switch {
	case q.conn.logins[q.pools] == nil && !policy.SendsLogin(q.Facts.Request.Fields):
		return backs.NoLogin
	case q.keepsLogin():
		q.ExpectLogin(e)
		return backs.ClientLogin
	}
	return backs.RequestLogin
}

// keepsLogin reports whether the client's connection can be tied to a login.
func (q *request) keepsLogin() bool { return q.Facts.Request.Major == 1 && !q.Facts.FromProxy() }

// Preferred returns the endpoint at which the client may be logged in, or nil.
func (q *request) Preferred() *upstream.Endpoint { return q.conn.logins[q.pools] }

// ExpectLogin gives the client's connection its own upstream connections to e,
// from the next request on, if it can be tied to a login.
func (q *request) ExpectLogin(e *upstream.Endpoint) {
	if !q.keepsLogin() {
		return
	}
	if q.conn.logins == nil {
		q.conn.logins = make(logins)
	}
	q.conn.logins[q.pools] = e
}
