package l7

import (
	"cmp"
	"net/netip"
	"strings"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/drawbridge-gateway/drawbridge/bridge/l7/wire"
	"github.com/drawbridge-gateway/drawbridge/bridge/socket"
	"github.com/drawbridge-gateway/drawbridge/bridge/upstream"
)

// A Protocol is a choice of HTTP version.
type Protocol int

// The protocols. With TLS the upstream's certs.Client must offer by ALPN what
// is chosen here.
const (
	Auto  Protocol = iota // HTTP/2 if the upstream negotiates it, else HTTP/1.1; HTTP/1.1 with plaintext
	HTTP1                 // HTTP/1.1
	HTTP2                 // HTTP/2; by prior knowledge with plaintext
)

// BackOptions are a Back's.
type BackOptions struct {
	Upstream *upstream.Upstream
	Protocol Protocol
	TLS      bool // the upstream's endpoints speak TLS

	// SendUpstreamHost sends Host in place of the host that the client asked
	// for; the endpoint's Authority if Host is "". Host is a name or an IP
	// address, with or without a port; brackets around IPv6 are added.
	SendUpstreamHost bool
	Host             string

	MaxIdle     int           // most idle connections kept per endpoint; 0: 1024; less than 0: none
	IdleTimeout time.Duration // how long one is kept idle; 0: 60s

	// MaxAge is for how long, at most, a connection takes further requests; it
	// is closed when those it has are answered. 0: no limit.
	MaxAge time.Duration

	Logger hclog.Logger // nil discards
}

// A Back carries requests to one upstream, and keeps connections to its
// endpoints for further requests. It never shares a connection with another
// Back, nor between hosts if the upstream takes the server name from the
// request, nor between connections of clients if it announces them.
type Back struct {
	options BackOptions

	endpoints endpointPools
	hosts     *hostPools // pools for one host, or one client's connection
	perHost   bool       // no others are used

	// What connections use again.
	buffers  socket.Pool
	decoders wire.Decoders
}

// NewBack returns a Back. It holds nothing until requests are carried; after
// that it should be Retired when no more are sent.
func NewBack(o BackOptions) *Back {
	o.Host = asAuthority(o.Host)
	if o.Logger == nil {
		o.Logger = hclog.NewNullLogger()
	}
	b := &Back{options: o, perHost: o.Upstream.FromHost() || o.Upstream.Announces()}
	b.endpoints.back, b.hosts = b, newHostPools(b)
	o.Upstream.SetEvictIdle(b.letGo)
	o.Upstream.NotifyLeft(func(e *upstream.Endpoint) {
		b.hosts.leave(e)
		b.endpoints.leave(e)
	})
	return b
}

// Retire closes idle connections, and lets each other one be closed after the
// requests it carries. A request that still comes is served.
func (b *Back) Retire() {
	b.hosts.retire()
	b.endpoints.retire()
}

// pool returns the connections to an endpoint for a request's host, which came
// over c.
func (b *Back) pool(e *upstream.Endpoint, host string, c *conn) *pool {
	if !b.perHost {
		return b.endpoints.pool(e)
	}
	return b.hosts.pool(b.key(e, host, c))
}

// privatePool returns the connections to an endpoint that belong to c alone.
func (b *Back) privatePool(e *upstream.Endpoint, host string, c *conn) *pool {
	key := b.key(e, host, c)
	key.client, key.private = c, true
	return b.hosts.pool(key)
}

// singlePool returns a pool for one request, which keeps no connection.
func (b *Back) singlePool(e *upstream.Endpoint, host string, c *conn) *pool {
	key := b.key(e, host, c)
	key.private = true
	p := b.newPool(key)
	p.retired = true
	return p
}

// key says which connections to an endpoint a request for a host can use.
func (b *Back) key(e *upstream.Endpoint, host string, c *conn) hostPool {
	key := hostPool{endpoint: e}
	if b.options.Upstream.FromHost() {
		key.host = host
	}
	if b.options.Upstream.Announces() {
		key.client = c
	}
	return key
}

func (b *Back) scheme() string {
	if b.options.TLS {
		return "https"
	}
	return "http"
}

// host returns the name of an endpoint as a Host.
func (b *Back) host(e *upstream.Endpoint) string {
	if b.options.Host == "" && e.Network() == "unix" {
		return "localhost" // a path is no host
	}
	if b.options.Host != "" {
		return b.options.Host
	}
	return asAuthority(e.Authority())
}

// asAuthority returns a host, with or without a port, as it stands in Host and
// :authority: IPv6 in brackets, and without a zone, which means something on this
// machine alone (RFC 6874, section 4).
func asAuthority(host string) string {
	if strings.Count(host, ":") < 2 {
		return host
	}
	if a, err := netip.ParseAddr(host); err == nil && a.Is6() {
		return "[" + a.WithZone("").String() + "]"
	}
	if a, err := netip.ParseAddrPort(host); err == nil && a.Addr().Zone() != "" {
		return netip.AddrPortFrom(a.Addr().WithZone(""), a.Port()).String()
	}
	return host
}

func (b *Back) newPool(key hostPool) *pool {
	return &pool{back: b, hostPool: key}
}

func (b *Back) maxIdle() int { return cmp.Or(b.options.MaxIdle, 1024) }

// upgradePurpose returns which of an endpoint's TLS settings lead to HTTP/1.1:
// those for streams, which offer nothing by ALPN of themselves, unless those
// for HTTP offer HTTP/1.1 alone.
func upgradePurpose(o BackOptions) upstream.Purpose {
	if o.Protocol == HTTP1 {
		return upstream.HTTP
	}
	return upstream.Stream
}
