// Passthrough connections reach the upstream of their SNI with the client's own
// TLS, on the same listener as connections that the gateway decrypts. An
// upstream can switch to passthrough and back while other connections stay
// open.

package e2e

import (
	"crypto/tls"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

func passthrough(name, address string) *adminv1.Upstream {
	u := plainUpstream(name, address)
	u.Transport = &adminv1.Upstream_Passthrough{Passthrough: &adminv1.Passthrough{}}
	return u
}

func TestPassthrough(t *testing.T) {
	t.Parallel()
	front, own := newAuthority(t), newAuthority(t)
	// The upstream requires a client certificate, which a gateway could not
	// forward.
	config := own.serverConfig(t)
	passed, bridged := serveConns(t, config, echo), serveConns(t, nil, echo)

	g := startGateway(t)
	l := listener("tls", protocolTCP, "bridged")
	l.Tls = &adminv1.ServerTls{Certificates: []string{"front"}}
	route := &adminv1.Route{
		Name: "own", Listeners: []string{"tls"}, Match: &adminv1.RouteMatch{Hosts: []string{serverName}},
		Action: &adminv1.Route_Forward{Forward: &adminv1.Forward{Upstreams: []*adminv1.WeightedUpstream{{Name: "passed"}}}},
	}
	g.apply(certificate("front", serverCert(t, front.ca, "front.example.com")), passthrough("passed", passed), plainUpstream("bridged", bridged), l, route)

	connect := func(name string, a *authority) *tls.Conn {
		t.Helper()
		conn := tls.Client(dial(t, g.address("tls")), &tls.Config{ServerName: name, RootCAs: pool(a.ca), Certificates: []tls.Certificate{keyPair(t, own.client)}})
		if err := pingPong(conn, "hello "+name); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		return conn
	}
	through := connect(serverName, own)
	connect("front.example.com", front)
	if got := g.upstream("passed").GetEndpoints()[0]; got.GetHandshakesFull() != 0 || got.GetConnectionsMade() != 1 {
		t.Errorf("the gateway terminated TLS: %v", got)
	}

	// New connections are decrypted from now on.
	g.apply(plainUpstream("passed", bridged))
	if err := pingPong(through, "still here"); err != nil {
		t.Errorf("the connection opened before: %v", err)
	}
	conn := tls.Client(dial(t, g.address("tls")), &tls.Config{ServerName: serverName, InsecureSkipVerify: true})
	if err := pingPong(conn, "hello"); err != nil || conn.ConnectionState().PeerCertificates[0].Subject.CommonName != "front.example.com" {
		t.Errorf("a new connection: %v", err)
	}

	// A plaintext listener can only pass TLS through.
	l.Tls = nil
	_, err := g.admin.PutListener(longContext(t), &adminv1.PutListenerRequest{Listener: l})
	if status.Code(err) != codes.InvalidArgument {
		t.Errorf("a plaintext listener that decrypts: %v", err)
	}
}
