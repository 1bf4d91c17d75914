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

// A Table says what a listener does with its requests in one revision. It is
// immutable. The zero Table accepts plaintext and answers everything with 404.
type Table struct {
	TLS *certs.Servers // nil: plaintext. Taken once per connection.

	// Validity says how clients are verified while their connections are open. Nil: each
	// client is verified in its handshake only.
	Validity *validity.Policy

	// Routes decide on each request. Nil matches nothing.
	Routes *route.Table[*Action]

	// Default serves requests that no route matches. Nil: they get 404.
	Default *Action

	// ProxyProtocol says which peers' PROXY protocol headers are trusted. With it
	// every connection must begin with such a header, and belongs to the announced
	// client from then on; connections from other peers are rejected. Nil: the
	// listener expects no such headers.
	ProxyProtocol *proxyproto.Trust

	// Access says which clients are served. The connection of any other client is
	// closed after its PROXY protocol header, if any, before anything else is read. A
	// request that a trusted proxy forwards for another client gets 403. Nil: all
	// clients are served.
	Access *cidr.Access

	// TrustedProxies may name the client, in X-Forwarded-For, and what it asked
	// for, in X-Forwarded-Proto, -Host and -Port. Nil: no proxy is trusted.
	TrustedProxies *cidr.Peers

	// The fields that upstreams receive about the client. The client's own values
	// of these fields, in any spelling, are removed even if the gateway adds none.
	Forwarding        policy.Forwarding
	ClientCertificate policy.ClientCertificateFields

	// UnderscoreFields says what happens to fields whose names have underscores.
	UnderscoreFields policy.UnderscoreFields

	// MakeTrace begins a trace (W3C Trace Context) for each request without one.
	MakeTrace bool

	// RequestIDField is the field that has each request's id, and its response's.
	// A client's id is kept if it is plain and short. "": requests get no id.
	RequestIDField string

	MaxConnections int // open at once; 0: no limit
	MaxPerClient   int // open at once from one IP address; 0: no limit

	// HandshakeTimeout is for the client's TLS handshake, and before it for the
	// PROXY protocol header. 0: 10s.
	HandshakeTimeout  time.Duration
	HeaderReadTimeout time.Duration // for a request's header (HTTP/1); 0: 10s

	// IdleTimeout is how long a kept-alive connection may be without a request,
	// how long a client may pause within a body (HTTP/1), and how long it may stop
	// reading a response. 0: 75s.
	IdleTimeout time.Duration

	MaxHeaderBytes  int   // most bytes of a request's header; 0: 65536
	MaxHeaderFields int   // most fields of a request's header; 0: 1000
	MaxBody         int64 // most bytes of a request's body; 0: no limit

	Limits limit.Limits // of requests

	// MaxRequests is how many requests a connection accepts, and MaxAge for how
	// long, a little less for some, so that not all clients reconnect at once. An
	// HTTP/2 connection keeps the limits of its beginning. 0: no limit.
	MaxRequests int
	MaxAge      time.Duration

	// NoAccessLog keeps requests that end out of the access log.
	NoAccessLog bool
}

// rules returns the rules for admitting connections. Each request from a trusted
// proxy is checked by itself.
func (t *Table) rules() intake.Rules {
	return intake.Rules{
		ProxyProtocol: t.ProxyProtocol, Access: t.Access, Proxies: t.TrustedProxies,
		MaxConnections: t.MaxConnections, MaxPerClient: t.MaxPerClient, HandshakeTimeout: t.HandshakeTimeout,
	}
}

// spelling says which of a client's fields are dropped for their names' spelling.
func (t *Table) spelling() policy.Spelling {
	return policy.Spelling{Underscores: t.UnderscoreFields, Routing: t.Routes.HeaderNames()}
}

// settings are the ones that apply from the beginning of a request, before it
// is routed.
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

// age returns how old one connection may become; 0: no limit.
func (st settings) age() time.Duration { return intake.Age(st.maxAge) }

// misdirects reports whether a connection made with an SNI must not carry a request for a
// host (RFC 9110, section 7.4): the host's TLS policy is another, or it is a host that the
// listener rejects as SNI.
func (t *Table) misdirects(sni, host string) bool {
	return t.TLS != nil && host != "" && !t.TLS.Serves(sni, host)
}

// action returns the action for a request; nil: no route and no default
// matches.
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

	named atomic.Pointer[string] // see name

	RequestHeaders  policy.HeaderRules // for what is forwarded
	ResponseHeaders policy.HeaderRules // for every response but one of this package's errors
}

// Forward carries a request to an upstream.
type Forward struct {
	Backs *upstream.Split[*backs.Pools]

	// Rewrite makes the path that the upstream receives. Nil: the request's own
	// path.
	Rewrite *route.Rewrite

	// Timeout is how long the upstream's response header may take, from when
	// the request is routed. 0: five minutes from when all of the request was
	// sent; gRPC calls have no limit then.
	Timeout time.Duration

	// TotalTimeout is how long all of the exchange may take: until the response is
	// over, its body included. An upgrade lifts it. 0: no limit.
	TotalTimeout time.Duration

	// Retry says when a request is retried, all within Timeout. Nil: only if no
	// endpoint can have received it, because no connection could be made or the
	// connection turned out to be closed.
	Retry *exchange.Retry
}

// Redirect answers with another address: the request's own, except for the
// parts that are set.
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

// location returns the new address of the request. Unset parts are those of the
// host that the client asked for and the scheme that it used.
func (r *Redirect) location(f *policy.Facts) string {
	t, scheme, host := &f.Target, f.Scheme, f.Authority()
	if r.Scheme != "" && r.Scheme != scheme {
		// The port of one scheme is hardly the port of the other.
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
