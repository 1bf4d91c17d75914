package l4

import (
	"cmp"
	"time"

	"github.com/drawbridge-gateway/drawbridge/bridge/cidr"
	"github.com/drawbridge-gateway/drawbridge/bridge/intake"
	"github.com/drawbridge-gateway/drawbridge/bridge/limit"
	"github.com/drawbridge-gateway/drawbridge/bridge/proxyproto"
	"github.com/drawbridge-gateway/drawbridge/bridge/route"
	"github.com/drawbridge-gateway/drawbridge/bridge/upstream"
	"github.com/drawbridge-gateway/drawbridge/certs"
)

// A Table is what a listener does with its connections in one revision. It is
// immutable. The zero Table accepts plaintext and closes every connection, for
// want of an upstream.
type Table struct {
	TLS *certs.Server // nil: plaintext

	// Peek has each connection begin with a ClientHello, which is read before
	// anything else is decided: it must be set where a Target is a Passthrough. A
	// connection that begins otherwise is closed. If TLS is nil, those that go to
	// no Passthrough are closed too.
	Peek bool

	// Routes are matched by the host name that the client asked for by SNI.
	// Nil matches nothing.
	Routes *route.Table[*Target]

	// Default takes what no route matches. Nil: such connections are closed.
	Default *Target

	// ProxyProtocol says whose PROXY protocol headers are taken. With it every
	// connection begins with one, and is the announced client's from then on;
	// from who is not trusted none is taken at all. Nil: nobody sends any.
	ProxyProtocol *proxyproto.Trust

	// Access says which clients are served. A connection of another is closed
	// before anything of it is read but its PROXY protocol header. Nil: all are.
	Access *cidr.Access

	MaxConnections int // open at once; 0: no limit
	MaxPerClient   int // open at once from one IP address; 0: no limit

	// Rate is how many connections are taken in a time, RatePerClient how many
	// of one client; further ones are closed.
	Rate, RatePerClient limit.Rate

	// HandshakeTimeout is for the client's TLS handshake, or its ClientHello, and
	// before it for the PROXY protocol header. 0: 10s.
	HandshakeTimeout time.Duration

	// IdleTimeout is how long a connection may go without a byte in either
	// direction, and how long a side may leave what it is sent unread. 0: 1h. The
	// upstream's own applies if it is shorter.
	IdleTimeout time.Duration

	// Linger is how long, once one side has ended its stream, the other may
	// stay silent. 0: 60s. It is at most IdleTimeout.
	Linger time.Duration

	// NoAccessLog keeps connections that end out of the access log.
	NoAccessLog bool
}

// A Target is where a connection goes.
type Target struct {
	Route     string // for the log; "" if no route chose it
	Upstreams *upstream.Split[*upstream.Upstream]

	// Attempts bound how the upstreams' endpoints are tried.
	Attempts upstream.Attempts

	// Passthrough has the client's TLS carried as it is, not decrypted.
	Passthrough bool
}

// rules returns those by which connections are taken.
func (t *Table) rules() intake.Rules {
	return intake.Rules{
		ProxyProtocol: t.ProxyProtocol, Access: t.Access, HandshakeTimeout: t.HandshakeTimeout,
		MaxConnections: t.MaxConnections, MaxPerClient: t.MaxPerClient, Rate: t.Rate, RatePerClient: t.RatePerClient,
	}
}

func (t *Table) idleTimeout() time.Duration { return cmp.Or(t.IdleTimeout, time.Hour) }

// idle returns what holds for a connection to u.
func (t *Table) idle(u *upstream.Upstream) time.Duration {
	if own := u.IdleTimeout(); own > 0 {
		return min(own, t.idleTimeout())
	}
	return t.idleTimeout()
}

func (t *Table) linger() time.Duration { return cmp.Or(t.Linger, time.Minute) }

// Passes reports whether a client that asked for a server name goes where its TLS
// is not decrypted.
func (t *Table) Passes(serverName string) bool {
	if !t.Peek {
		return false
	}
	target := t.target(hostOf(serverName))
	return target != nil && target.Passthrough
}

// hostOf returns the host that an SNI asks for. A name that is none cannot be any
// route's or upstream's, so it is left empty and only a route that asks for no
// host takes it.
func hostOf(serverName string) string {
	host, err := route.NormalizeHost(serverName)
	if err != nil {
		return ""
	}
	return host
}

// target returns where a client that asked for host goes; nil: nowhere.
func (t *Table) target(host string) *Target {
	if target, ok := t.Routes.Match(route.Request{Host: host}); ok {
		return target
	}
	return t.Default
}
