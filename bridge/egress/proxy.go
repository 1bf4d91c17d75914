package egress

import (
	"context"
	"net"

	"github.com/hashicorp/go-hclog"

	"github.com/drawbridge-gateway/drawbridge/bridge/resolve"
	"github.com/drawbridge-gateway/drawbridge/certs"
)

// A Protocol is the protocol that a proxy speaks.
type Protocol int

// The protocols.
const (
	HTTPConnect Protocol = iota // RFC 9110, section 9.3.6
	SOCKS5                      // RFC 1928
)

func (p Protocol) String() string {
	if p == SOCKS5 {
		return "SOCKS5"
	}
	return "HTTP"
}

// A Proxy is an egress proxy. It is immutable and safe for concurrent use.
type Proxy struct {
	Protocol Protocol
	Address  string // host:port

	// TLS makes the TLS handshake with an HTTP proxy. Nil: connect to the proxy in
	// plaintext.
	TLS *certs.Client

	// Username and Password are sent to the proxy unless both are empty.
	Username, Password string

	Logger hclog.Logger // receives panics of relays; nil discards
}

// String returns the proxy's protocol and address, without credentials.
func (p *Proxy) String() string { return p.Protocol.String() + " proxy " + p.Address }

func (p *Proxy) hasCredentials() bool { return p.Username != "" || p.Password != "" }

// Dial connects through the proxy to a server, given as host:port. It fails when ctx
// ends. The network is always TCP. The proxy resolves the host.
func (p *Proxy) Dial(ctx context.Context, _, address string) (net.Conn, error) {
	if p.Protocol == SOCKS5 {
		return p.dialSOCKS(ctx, address)
	}
	return p.dialHTTP(ctx, address)
}

// reach connects to the proxy itself.
func (p *Proxy) reach(ctx context.Context) (net.Conn, error) {
	conn, err := resolve.Dial(ctx, "tcp", p.Address)
	if err != nil {
		return nil, p.failed(certs.ReasonEgressProxyFailed, err, "cannot be reached")
	}
	return conn, nil
}
