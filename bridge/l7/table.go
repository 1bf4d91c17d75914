package l7

import (
	"cmp"
	"sync/atomic"
	"time"

	"github.com/drawbridge-gateway/drawbridge/bridge/cidr"
	"github.com/drawbridge-gateway/drawbridge/bridge/intake"
	"github.com/drawbridge-gateway/drawbridge/bridge/l7/backs"
	"github.com/drawbridge-gateway/drawbridge/bridge/l7/exchange"
	"github.com/drawbridge-gateway/drawbridge/bridge/l7/policy"
	"github.com/drawbridge-gateway/drawbridge/bridge/limit"
	"github.com/drawbridge-gateway/drawbridge/bridge/proxyproto"
	"github.com/drawbridge-gateway/drawbridge/bridge/route"
	"github.com/drawbridge-gateway/drawbridge/bridge/upstream"
	"github.com/drawbridge-gateway/drawbridge/bridge/validity"
	"github.com/drawbridge-gateway/drawbridge/certs"
)

// A Table holds the settings and routes of a listener in one revision. It is
// immutable. The zero Table accepts plaintext and answers everything with 404.
type Table struct {
	TLS *certs.Servers // nil: plaintext. Taken once per connection.

	// Validity says how clients are verified while their connections are open. Nil: a
	// client is verified only in its handshake.
	Validity *validity.Policy

	// Routes decide on each request. Nil matches nothing.
	Routes *route.Table[*Action]

	// Default serves requests that no route matches. Nil: they get 404.
	Default *Action

	// ProxyProtocol says which peers' PROXY protocol headers are trusted. If it is
	// set, every connection must come from such a peer and begin with such a
	// header. The connection then belongs to the announced client. Nil: the
	// listener expects no such headers.
	ProxyProtocol *proxyproto.Trust

	// Access says which clients are served. The connection of any other client is
	// closed after its PROXY protocol header, if any, before anything else is read. A
	// request that a trusted proxy forwards for another client gets 403. Nil: all
	// clients are served.
	Access *cidr.Access

	// TrustedProxies may name the client, in X-Forwarded-For, and the scheme, host
	// and port that it used, in X-Forwarded-Proto, -Host and -Port. Nil: no proxy
	// is trusted.
	TrustedProxies *cidr.Peers

	// The fields that upstreams receive about the client. The client's own values
	// of these fields, in any spelling, are removed even if the gateway adds none.
	Forwarding        policy.Forwarding
	ClientCertificate policy.ClientCertificateFields

	// UnderscoreFields says what happens to fields whose names have underscores.
	UnderscoreFields policy.UnderscoreFields

	// MakeTrace begins a trace (W3C Trace Context) for each request without one.
	MakeTrace bool

	// RequestIDField is the field that carries the ID of each request and of its
	// response. A client's ID is kept if it is plain and short. "": requests get
	// no ID.
	RequestIDField string

	MaxConnections int // maximum open connections; 0: no limit
	MaxPerClient   int // maximum open connections from one IP address; 0: no limit

	// HandshakeTimeout bounds the client's TLS handshake, and separately the PROXY
	// protocol header before it. 0: 10s.
	HandshakeTimeout  time.Duration
	HeaderReadTimeout time.Duration // bounds the arrival of a request's header (HTTP/1); 0: 10s

	// IdleTimeout is how long a kept-alive connection may be without a request,
	// how long a client may pause within a body (HTTP/1), and how long it may stop
	// reading a response. 0: 75s.
	IdleTimeout time.Duration

	MaxHeaderBytes  int   // maximum bytes of a request's header; 0: 65536
	MaxHeaderFields int   // maximum fields of a request's header; 0: 1000
	MaxBody         int64 // maximum bytes of a request's body; 0: no limit

	Limits limit.Limits // limits of requests

	// MaxRequests bounds how many requests a connection accepts. MaxAge bounds how
	// long it accepts them; it is a little shorter for some connections, so that
	// not all clients reconnect at once. An HTTP/2 connection keeps the limits
	// that it began with. 0: no limit.
	MaxRequests int
	MaxAge      time.Duration

	// NoAccessLog disables the access log for requests that end under this table.
	NoAccessLog bool
}

// rules returns the rules for admitting connections. Each request from a trusted
// proxy is checked separately.
func (t *Table) rules() intake.Rules {
	return intake.Rules{
		ProxyProtocol: t.ProxyProtocol, Access: t.Access, Proxies: t.TrustedProxies,
		MaxConnections: t.MaxConnections, MaxPerClient: t.MaxPerClient, HandshakeTimeout: t.HandshakeTimeout,
	}
}

// spelling returns which client fields are dropped because of their names'
// spelling.
func (t *Table) spelling() policy.Spelling {
	return policy.Spelling{Underscores: t.UnderscoreFields, Routing: t.Routes.HeaderNames()}
}

// settings hold the settings that apply to a request before it is routed.
type settings struct {
	idleTimeout       time.Duration
	headerReadTimeout time.Duration
	maxHeaderBytes    int
	maxHeaderFields   int
	maxRequests       int
	maxAge            time.Duration
}

func (t *Table) settings() settings {
	if t == nil {
		t = &Table{}
	}
	return settings{
		idleTimeout:       cmp.Or(t.IdleTimeout, 75*time.Second),
		headerReadTimeout: cmp.Or(t.HeaderReadTimeout, 10*time.Second),
		maxHeaderBytes:    cmp.Or(t.MaxHeaderBytes, 64<<10),
		maxHeaderFields:   cmp.Or(t.MaxHeaderFields, 1000),
		maxRequests:       t.MaxRequests,
		maxAge:            t.MaxAge,
	}
}

// age returns the maximum age for one connection; 0: no limit.
func (st settings) age() time.Duration { return intake.Age(st.maxAge) }

// misdirects reports whether a connection with an SNI must not carry a request for a host
// (RFC 9110, section 7.4), because the host has another TLS policy or the listener
// rejects the host as SNI.
func (t *Table) misdirects(sni, host string) bool {
	return t.TLS != nil && host != "" && !t.TLS.Serves(sni, host)
}

// action returns the action for a request, or nil if no route matches and the
// table has no default.
func (t *Table) action(r route.Request) *Action {
	if a, ok := t.Routes.Match(r); ok {
		return a
	}
	return t.Default
}

// An Action says how to handle a request. One of Forward, Redirect and Respond
// is set.
type Action struct {
	Route string // the route's name for the log; "" for the default

	Forward  *Forward
	Redirect *Redirect
	Respond  *Respond

	named atomic.Pointer[string] // see name

	RequestHeaders  policy.HeaderRules // applied to forwarded requests
	ResponseHeaders policy.HeaderRules // applied to every response except this package's own errors
}

// Forward carries a request to an upstream.
type Forward struct {
	Backs *upstream.Split[*backs.Pools]

	// Rewrite computes the path for the upstream. Nil: the path is not rewritten.
	Rewrite *route.Rewrite

	// Timeout bounds the time from routing the request to the upstream's response
	// header. 0: five minutes from when all of the request was sent, and no limit
	// for gRPC calls.
	Timeout time.Duration

	// TotalTimeout bounds the whole exchange, to the end of the response's body.
	// An upgrade lifts it. 0: no limit.
	TotalTimeout time.Duration

	// Retry says when a request is retried, all within Timeout. Nil: a request is
	// retried only if no endpoint can have received it, because a dial failed or
	// the connection turned out to be closed.
	Retry *exchange.Retry
}

// Redirect answers with another address. Parts that are not set are taken from
// the request.
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

// location returns the new address of the request. Unset parts come from the
// requested host and the client's scheme.
func (r *Redirect) location(f *policy.Facts) string {
	t, scheme, host := &f.Target, f.Scheme, f.Authority()
	if r.Scheme != "" && r.Scheme != scheme {
		// The port of one scheme is rarely valid for the other.
		scheme, host = r.Scheme, f.Host()
	}
	path := t.Path + t.Query
	if r.Path != "" {
		path = r.Path
	}
	if path == "*" {
		path = "/"
	}
	return scheme + "://" + cmp.Or(r.Host, host) + path
}
