package l4

import (
	"cmp"
	"time"

	"github.com/drawbridge-gateway/drawbridge/bridge/cidr"
	"github.com/drawbridge-gateway/drawbridge/bridge/intake"
	"github.com/drawbridge-gateway/drawbridge/bridge/limit"
	"github.com/drawbridge-gateway/drawbridge/bridge/proxyproto"
	"github.com/drawbridge-gateway/drawbridge/bridge/route"
	"github.com/drawbridge-gateway/drawbridge/bridge/starttls"
	"github.com/drawbridge-gateway/drawbridge/bridge/upstream"
	"github.com/drawbridge-gateway/drawbridge/bridge/validity"
	"github.com/drawbridge-gateway/drawbridge/certs"
)

// A Table says how a listener handles its connections in one revision. It is immutable.
// The zero Table accepts plaintext and closes every connection, because it has no
// upstream.
type Table struct {
	TLS *certs.Servers // nil: plaintext

	// Starttls is the protocol in which clients request TLS before their handshake. With
	// StarttlsOptional, a client that does not request TLS is served in plaintext, like
	// a client without a server name and a certificate. None: connections begin with
	// TLS.
	Starttls         starttls.Protocol
	StarttlsOptional bool

	// Validity says how clients are verified while their connections are open. Nil:
	// a client is verified only in its handshake.
	Validity *validity.Policy

	// Peek makes the listener read a ClientHello before it decides anything else. It
	// must be set if any Target is a Passthrough. A connection that begins with anything
	// else is closed. If TLS is nil, connections that match no Passthrough are closed too.
	Peek bool

	// Routes match the host name in the client's SNI. Nil matches nothing.
	Routes *route.Table[*Target]

	// Default serves connections that match no route. Nil closes them.
	Default *Target

	// ProxyProtocol lists the peers whose PROXY protocol headers are trusted. If set,
	// every connection must begin with a header, and belongs to the client that the
	// header announces; a connection from any other peer is closed. Nil: connections begin
	// without a header.
	ProxyProtocol *proxyproto.Trust

	// Access decides which clients are admitted. The listener closes other connections
	// before it reads anything but the PROXY protocol header. Nil admits all.
	Access *cidr.Access

	MaxConnections int // maximum open connections; 0: no limit
	MaxPerClient   int // maximum open connections from one IP address; 0: no limit

	// Rate limits how many connections are admitted in a period, and RatePerClient how
	// many from one client. Connections beyond the limit are closed.
	Rate, RatePerClient limit.Rate

	// HandshakeTimeout bounds reading the PROXY protocol header, and then the client's
	// ClientHello and TLS handshake. 0: 10s.
	HandshakeTimeout time.Duration

	// IdleTimeout is how long a connection may move no byte in either direction, and
	// how long a side may leave its bytes unread. 0: 1h. The upstream's own limit
	// applies if it is shorter.
	IdleTimeout time.Duration

	// Linger is how long the second side may stay silent after the first has ended its
	// stream. 0: 60s. It is at most IdleTimeout.
	Linger time.Duration

	// MaxAge is the maximum age of a connection; each ends up to a tenth earlier. 0: no
	// limit.
	MaxAge time.Duration

	// While NoAccessLog is set, the access log omits the connections that end.
	NoAccessLog bool
}

// A Target is the destination of a connection.
type Target struct {
	Route     string // for logs; "" for the default
	Upstreams *upstream.Split[*upstream.Upstream]

	// Attempts bounds the attempts to dial an endpoint.
	Attempts upstream.Attempts

	// Passthrough forwards the client's TLS without decrypting it.
	Passthrough bool
}

// rules returns the part of the table that package intake applies.
func (t *Table) rules() intake.Rules {
	return intake.Rules{
		ProxyProtocol: t.ProxyProtocol, Access: t.Access, HandshakeTimeout: t.HandshakeTimeout,
		MaxConnections: t.MaxConnections, MaxPerClient: t.MaxPerClient, Rate: t.Rate, RatePerClient: t.RatePerClient,
	}
}

func (t *Table) idleTimeout() time.Duration { return cmp.Or(t.IdleTimeout, time.Hour) }

// idle returns the idle timeout of a connection to u.
func (t *Table) idle(u *upstream.Upstream) time.Duration {
	if own := u.IdleTimeout(); own > 0 {
		return min(own, t.idleTimeout())
	}
	return t.idleTimeout()
}

func (t *Table) linger() time.Duration { return cmp.Or(t.Linger, time.Minute) }

// Passes reports whether a client that sent a server name goes to a Passthrough. The
// client's certificate is not known yet, so routes with a condition on it do not
// count.
func (t *Table) Passes(serverName string) bool {
	if !t.Peek {
		return false
	}
	target := t.target(hostOf(serverName), nil)
	return target != nil && target.Passthrough
}

// hostOf returns the normalized host of an SNI. It returns "" for an invalid name,
// which only a route without a host matches.
func hostOf(serverName string) string {
	host, err := route.NormalizeHost(serverName)
	if err != nil {
		return ""
	}
	return host
}

// target returns the Target for a host and the client's verified certificate, which may
// be nil. It returns nil if there is no Target.
func (t *Table) target(host string, client *route.Client) *Target {
	if target, ok := t.Routes.Match(route.Request{Host: host, Client: client}); ok {
		return target
	}
	return t.Default
}
