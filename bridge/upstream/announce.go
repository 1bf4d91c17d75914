package upstream

import (
	"context"
	"net"
)

// announced is the key of a context's client.
type announced struct{}

type client struct{ source, destination net.Addr }

// Announce returns a context under which an Upstream that speaks the PROXY
// protocol announces its connections as a client's, who came from source to
// destination. Under any other they are announced as the gateway's own.
func Announce(ctx context.Context, source, destination net.Addr) context.Context {
	return context.WithValue(ctx, announced{}, client{source, destination})
}

// Announces reports whether connections are announced as a client's, so that
// each serves the client alone that Announce named.
func (u *Upstream) Announces() bool { return u.announces }
