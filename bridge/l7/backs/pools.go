package backs

import (
	"cmp"
	"net/netip"
	"strings"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/drawbridge-gateway/drawbridge/bridge/l7/message"
	"github.com/drawbridge-gateway/drawbridge/bridge/l7/wire"
	"github.com/drawbridge-gateway/drawbridge/bridge/socket"
	"github.com/drawbridge-gateway/drawbridge/bridge/upstream"
)

// A Protocol is a choice of HTTP version.
type Protocol int

// The protocols. With TLS the upstream's certs.Client must offer the chosen
// version by ALPN.
const (
	Auto  Protocol = iota // HTTP/2 if the upstream negotiates it, else HTTP/1.1; HTTP/1.1 with plaintext
	HTTP1                 // HTTP/1.1
	HTTP2                 // HTTP/2; by prior knowledge with plaintext
)

// Options configure Pools.
type Options struct {
	Upstream *upstream.Upstream
	Protocol Protocol
	TLS      bool // the upstream's endpoints speak TLS

	// SendUpstreamHost sends Host instead of the requested host, or the endpoint's
	// Authority if Host is "". Host is a name or an IP address, with or without a
	// port; brackets around IPv6 are added.
	SendUpstreamHost bool
	Host             string

	MaxIdle     int           // maximum idle connections kept per endpoint; 0: 1024; less than 0: none
	IdleTimeout time.Duration // how long an idle connection is kept; 0: 60s

	// MaxAge bounds how long a connection accepts requests. Afterward it is
	// closed when its requests are answered. 0: no limit.
	MaxAge time.Duration

	Logger hclog.Logger // nil discards
}

// Pools are the connections to the endpoints of one upstream. They keep idle ones
// for further requests. They never share a connection with other Pools, nor
// between hosts if the upstream takes the server name from the request, nor
// between client connections if clients are announced to the upstream.
type Pools struct {
	options Options

	endpoints endpointPools
	hosts     *hostPools // pools for one host, or one client's connection
	perHost   bool       // only the pools in hosts are used

	// Shared by the connections.
	buffers  socket.Pool
	decoders wire.Decoders
}

// New returns Pools. They hold no connections until the first Get. After that, the
// caller must call Retire when it sends no more requests.
func New(o Options) *Pools {
	o.Host = asAuthority(o.Host)
	if o.Logger == nil {
		o.Logger = hclog.NewNullLogger()
	}
	b := &Pools{options: o, perHost: o.Upstream.FromHost() || o.Upstream.Announces()}
	b.endpoints.back, b.hosts = b, newHostPools(b)
	o.Upstream.SetEvictIdle(b.evictIdle)
	o.Upstream.NotifyLeft(func(e *upstream.Endpoint) {
		b.hosts.leave(e)
		b.endpoints.leave(e)
	})
	return b
}

// Upstream returns the upstream that the connections lead to.
func (b *Pools) Upstream() *upstream.Upstream { return b.options.Upstream }

// Options returns the Options passed to New.
func (b *Pools) Options() Options { return b.options }

// Buffers returns the pool that connections take their buffers from.
func (b *Pools) Buffers() *socket.Pool { return &b.buffers }

// Kept returns how many pools there are for an endpoint: one, or one for each host
// or client. An endpoint that has left the upstream has none.
func (b *Pools) Kept(e *upstream.Endpoint) int { return b.endpoints.kept(e) + b.hosts.kept(e) }

// Retire closes idle connections. Every other connection is closed after the
// requests that it carries. Later requests are still served.
func (b *Pools) Retire() {
	b.hosts.retire()
	b.endpoints.retire()
}

// Address returns the scheme and authority for a request to an endpoint, given the
// requested authority.
func (b *Pools) Address(e *upstream.Endpoint, asked string) (scheme, authority string) {
	if b.options.SendUpstreamHost || asked == "" {
		return b.scheme(), b.host(e)
	}
	return b.scheme(), asked
}

// Get returns a Back to an endpoint for a request. It sets *given to how it obtained
// the Back, even if it fails.
func (b *Pools) Get(e *upstream.Endpoint, n *Need, given *BackInfo) (message.Back, error) {
	return b.pool(e, n).get(n, given)
}

// pool returns the pool for a request to an endpoint.
func (b *Pools) pool(e *upstream.Endpoint, n *Need) *pool {
	switch n.Login {
	case ClientLogin:
		key := b.key(e, n.Host, n.Client)
		key.client, key.private = n.Client, true
		return b.hosts.pool(key)
	case RequestLogin:
		key := b.key(e, n.Host, n.Client)
		key.private = true
		p := b.newPool(key)
		p.retired = true // this pool keeps no connection
		return p
	}
	if !b.perHost {
		return b.endpoints.pool(e)
	}
	return b.hosts.pool(b.key(e, n.Host, n.Client))
}

// key returns the key of the pool for a request to an endpoint.
func (b *Pools) key(e *upstream.Endpoint, host string, c *Client) hostPool {
	key := hostPool{endpoint: e}
	if b.options.Upstream.FromHost() {
		key.host = host
	}
	if b.options.Upstream.Announces() {
		key.client = c
	}
	return key
}

// scheme returns the scheme of requests to the upstream.
func (b *Pools) scheme() string {
	if b.options.TLS {
		return "https"
	}
	return "http"
}

// host returns the name of an endpoint as a Host.
func (b *Pools) host(e *upstream.Endpoint) string {
	if b.options.Host == "" && e.Network() == "unix" {
		return "localhost" // a socket's path is not a host
	}
	if b.options.Host != "" {
		return b.options.Host
	}
	return asAuthority(e.Authority())
}

// asAuthority returns a host, with or without a port, in the form of Host and
// :authority: IPv6 in brackets, and without a zone, which has a meaning on this
// machine only (RFC 6874, section 4).
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

func (b *Pools) newPool(key hostPool) *pool {
	return &pool{back: b, hostPool: key}
}

func (b *Pools) maxIdle() int { return cmp.Or(b.options.MaxIdle, 1024) }

// SharesUpgrades reports whether upgraded requests share connections with others,
// as they do if every request is sent over HTTP/2.
func (b *Pools) SharesUpgrades() bool { return b.options.Protocol == HTTP2 }

// upgradePurpose returns which of an endpoint's TLS settings lead to HTTP/1.1:
// the settings for HTTP if they offer only HTTP/1.1, else the settings for
// streams, which offer no ALPN by default.
func upgradePurpose(o Options) upstream.Purpose {
	if o.Protocol == HTTP1 {
		return upstream.HTTP
	}
	return upstream.Stream
}
