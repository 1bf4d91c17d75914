package admin

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"

	"github.com/hashicorp/go-hclog"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"

	"github.com/drawbridge-gateway/drawbridge/gateway/access"
	"github.com/drawbridge-gateway/drawbridge/gateway/guard"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

// A caller is the authenticated peer of a connection.
type caller struct {
	credentials.CommonAuthInfo
	*access.Caller
	address string // the peer's address; "" for a unix socket
}

// AuthType names how the caller was authenticated, for credentials.AuthInfo.
func (caller) AuthType() string { return "drawbridge" }

// callerOf returns the caller of a call; ok is false if it was not authenticated.
func callerOf(ctx context.Context) (from caller, ok bool) {
	if p, found := peer.FromContext(ctx); found {
		from, ok = p.AuthInfo.(caller)
	}
	return from, ok
}

// transport authenticates connections. It admits unix sockets, where the mode of the
// file says which users may connect, and TLS with a verified client certificate. It
// rejects every other kind of connection.
type transport struct {
	log     hclog.Logger
	refused *guard.Limiter // limits log lines about rejected connections
}

// ServerHandshake authenticates the caller. gRPC sets the deadline, and closes raw
// after an error.
func (t *transport) ServerHandshake(raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	from, err := identify(raw)
	if err != nil {
		if suppressed, ok := t.refused.Allow(); ok {
			t.log.Info("connection rejected", "client", raw.RemoteAddr().String(), "error", sanitize(err.Error(), maxFault), "lines_suppressed", suppressed)
		}
		return nil, nil, err
	}
	return raw, from, nil
}

func identify(raw net.Conn) (caller, error) {
	from := caller{
		CommonAuthInfo: credentials.CommonAuthInfo{SecurityLevel: credentials.PrivacyAndIntegrity},
		Caller:         new(access.Caller),
	}
	if bounded, ok := raw.(*guard.Conn); ok {
		bounded.SetProven(true) // the mode of the socket's file admitted the peer
		raw = bounded.NetConn()
	}
	switch conn := raw.(type) {
	case *net.UnixConn:
		from.Principal, from.Transport = "unix", adminv1.Transport_TRANSPORT_UNIX
		if uid, gids, ok := access.PeerOf(conn); ok {
			from.Subjects = access.LocalSubjects(uid, gids)
			from.Principal = from.Subjects[0]
			from.Owner = uid == 0 || int(uid) == os.Geteuid()
		}
		return from, nil
	case *tcpConn:
		// The handshake is bounded by the deadline that gRPC set on the connection.
		state, err := conn.handshake()
		if err != nil {
			return from, err
		}
		if len(state.PeerCertificates) == 0 {
			return from, errors.New("no verified client certificate")
		}
		if state.NegotiatedProtocol != "h2" {
			return from, errors.New("h2 was not negotiated by ALPN")
		}
		if bounded, ok := conn.NetConn().(*guard.Conn); ok {
			bounded.SetProven(true)
		}
		from.address, from.Transport = conn.RemoteAddr().String(), adminv1.Transport_TRANSPORT_TCP
		from.Principal, from.Subjects = callerName(state), access.CertificateSubjects(state.PeerCertificates[0])
		return from, nil
	}
	return from, fmt.Errorf("a %T is neither a unix socket nor TLS", raw)
}

// The remaining methods of credentials.TransportCredentials.

func (t *transport) ClientHandshake(context.Context, string, net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return nil, nil, errors.New("these credentials are for servers only")
}

func (t *transport) Info() credentials.ProtocolInfo {
	return credentials.ProtocolInfo{SecurityProtocol: "drawbridge"}
}

func (t *transport) Clone() credentials.TransportCredentials { return t }

func (t *transport) OverrideServerName(string) error { return nil }
