package health

import (
	"cmp"
	"context"
	"net"
	"strings"

	"github.com/drawbridge-gateway/drawbridge/bridge/upstream"
	"github.com/drawbridge-gateway/drawbridge/certs"
)

// A Check checks an endpoint; see upstream.CheckOptions.
type Check = func(ctx context.Context, e *upstream.Endpoint) error

// TCP checks that the endpoint accepts a connection.
func TCP() Check {
	return func(ctx context.Context, e *upstream.Endpoint) error {
		conn, err := e.CheckConnect(ctx)
		if err != nil {
			return err
		}
		return conn.Close()
	}
}

// TLS checks a handshake with the settings of a purpose. Host is the server
// name for settings that take it from each connection; "" means the endpoint's
// own name.
func TLS(p upstream.Purpose, host string) Check {
	return func(ctx context.Context, e *upstream.Endpoint) error {
		return e.CheckHandshake(ctx, p, cmp.Or(host, ownName(e)))
	}
}

// ownName returns the endpoint's host without a port, or "" for a path.
func ownName(e *upstream.Endpoint) string {
	host, _, err := net.SplitHostPort(e.Authority())
	if e.Network() == "unix" || err != nil {
		return ""
	}
	return strings.TrimSuffix(host, ".")
}

// failed returns the error for a wrong answer.
func failed(detail string) error {
	return &certs.VerifyError{Reason: certs.ReasonCheckFailed, Detail: detail}
}
