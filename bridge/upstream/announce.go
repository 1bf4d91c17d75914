package upstream

import (
	"context"
	"net"

	"github.com/drawbridge-gateway/drawbridge/bridge/starttls"
)

// announced is the context key of the announced client.
type announced struct{}

type client struct{ source, destination net.Addr }

// Announce returns a context for connections made for one client. An Upstream
// that speaks the PROXY protocol sends the client's source and destination in
// its header. Without Announce, it sends the gateway's own addresses.
func Announce(ctx context.Context, source, destination net.Addr) context.Context {
	return context.WithValue(ctx, announced{}, client{source, destination})
}

// Starttls returns the protocol in which connections start TLS. With MySQL, traffic needs
// starttls.WithClient.
func (u *Upstream) Starttls() starttls.Protocol { return u.options.Starttls }

// Announces reports whether connections begin with a PROXY header for one
// client. Each such connection serves only the client that Announce named.
func (u *Upstream) Announces() bool { return u.announces }
