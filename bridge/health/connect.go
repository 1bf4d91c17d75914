package health

import (
	"cmp"
	"context"
	"net"
	"strings"

	"github.com/drawbridge-gateway/drawbridge/bridge/upstream"
	"github.com/drawbridge-gateway/drawbridge/certs"
)

// An Ask is as upstream.CheckOptions has it.
type Ask = func(ctx context.Context, e *upstream.Endpoint) error

// TCP asks for a connection, and no more.
func TCP() Ask {
	return func(ctx context.Context, e *upstream.Endpoint) error {
		conn, err := e.CheckConnect(ctx)
		if err != nil {
			return err
		}
		return conn.Close()
	}
}

// TLS asks for a handshake with the settings of a purpose. Host is the name for
// settings that take it from each connection; "" is the endpoint's own.
func TLS(p upstream.Purpose, host string) Ask {
	return func(ctx context.Context, e *upstream.Endpoint) error {
		return e.CheckHandshake(ctx, p, cmp.Or(host, ownName(e)))
	}
}

// ownName returns the host that the endpoint is called by, without a port; "" if
// it is a path.
func ownName(e *upstream.Endpoint) string {
	host, _, err := net.SplitHostPort(e.Authority())
	if e.Network() == "unix" || err != nil {
		return ""
	}
	return strings.TrimSuffix(host, ".")
}

// failed returns the error of an endpoint that answered, but not as it is to.
func failed(detail string) error {
	return &certs.VerifyError{Reason: certs.ReasonCheckFailed, Detail: detail}
}
