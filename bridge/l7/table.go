package l7

import (
	"cmp"
	"time"

	"github.com/drawbridge-gateway/drawbridge/bridge/proxyproto"
	"github.com/drawbridge-gateway/drawbridge/bridge/route"
	"github.com/drawbridge-gateway/drawbridge/bridge/upstream"
	"github.com/drawbridge-gateway/drawbridge/certs"
)

// A Table is what a listener does with its requests in one revision. It is
// immutable. The zero Table accepts plaintext and answers everything with 404.
type Table struct {
	TLS *certs.Server // nil: plaintext. Taken once per connection.

	// Routes decide on each request. Nil matches nothing.
	Routes *route.Table[*Action]

	// Default takes what no route matches. Nil: such requests get 404.
	Default *Action

	// ProxyProtocol says whose PROXY protocol headers are taken. With it every
	// connection begins with one, and is the announced client's from then on;
	// from who is not trusted none is taken at all. Nil: nobody sends any.
	ProxyProtocol *proxyproto.Trust

	MaxConnections int // open at once; 0: no limit
	MaxPerClient   int // open at once from one IP address; 0: no limit

	// HandshakeTimeout is for the client's TLS handshake, and before it for the
	// PROXY protocol header. 0: 10s.
	HandshakeTimeout  time.Duration
	HeaderReadTimeout time.Duration // for a request's header (HTTP/1); 0: 10s

	// IdleTimeout is how long a kept-alive connection may be without a
	// request, how long a client may send nothing of a body it has begun
	// (HTTP/1), and how long it may take nothing of what it is sent. 0: 75s.
	IdleTimeout time.Duration

	MaxHeaderBytes int // most bytes of a request's header; 0: 65536

	// NoAccessLog keeps requests that end out of the access log.
	NoAccessLog bool
}

func (t *Table) handshakeTimeout() time.Duration { return cmp.Or(t.HandshakeTimeout, 10*time.Second) }

// settings are those that hold from the beginning of a request on, before it is
// routed.
type settings struct {
	idleTimeout       time.Duration
	headerReadTimeout time.Duration
	maxHeaderBytes    int
}

func (t *Table) settings() settings {
	if t == nil {
		t = &Table{}
	}
	return settings{
		idleTimeout:       cmp.Or(t.IdleTimeout, 75*time.Second),
		headerReadTimeout: cmp.Or(t.HeaderReadTimeout, 10*time.Second),
		maxHeaderBytes:    cmp.Or(t.MaxHeaderBytes, 64<<10),
	}
}

// action returns what happens to a request; nil: nothing is meant for it.
func (t *Table) action(r route.Request) *Action {
	if a, ok := t.Routes.Match(r); ok {
		return a
	}
	return t.Default
}

// An Action is what happens to a request: the one of Forward, Redirect and
// Respond that is set.
type Action struct {
	Route string // for the log; "" if no route chose it

	Forward  *Forward
	Redirect *Redirect
	Respond  *Respond

	RequestHeaders  HeaderRules // for what is forwarded
	ResponseHeaders HeaderRules // for every response but one of this package's errors
}

// Forward carries a request to an upstream.
type Forward struct {
	Backs *upstream.Split[*Back]

	// Timeout is how long the upstream's response header may take, from when
	// the request is routed. 0: no limit.
	Timeout time.Duration

	// TotalTimeout is how long all of the exchange may take: until the response
	// is over, its body included. It ends with an upgrade. 0: no limit.
	TotalTimeout time.Duration
}

// Redirect answers with another address, the request's own but for what is set.
type Redirect struct {
	Code   int    // 301, 302, 303, 307 or 308; 0: 302
	Scheme string // "http" or "https"
	Host   string // with or without a port. If only the scheme changes, the request's port is left out.
	Path   string // escaped. If it is set, the query is dropped.
}

// Respond answers with a fixed response.
type Respond struct {
	Code        int // 0: 200
	Body        string
	ContentType string // "": text/plain; charset=utf-8
}

// location returns the address that a request is sent to instead.
func (r *Redirect) location(t target, tls bool) string {
	scheme, host, path := "http", t.authority, t.path+t.query
	if tls {
		scheme = "https"
	}
	if r.Scheme != "" && r.Scheme != scheme {
		// The port that this scheme was asked on is hardly the other's.
		scheme, host = r.Scheme, t.host
	}
	if r.Path != "" {
		path = r.Path
	}
	if path == "*" {
		path = "/"
	}
	return scheme + "://" + cmp.Or(r.Host, host) + path
}
