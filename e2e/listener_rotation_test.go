// A listener's rotated certificate is presented to the next client and affects
// no open connection. Once the listener trusts another CA, clients of the old
// CA are rejected, even if they offer an earlier session to resume.

package e2e

import (
	"crypto/tls"
	"net/http"
	"net/http/httptrace"
	"testing"

	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

func TestRotatedListenerCertificate(t *testing.T) {
	t.Parallel()
	a := newAuthority(t)
	web := serveHTTPS(t, a.serverConfig(t), respondsWith("web"))
	raw := serveConns(t, a.serverConfig(t), echo)
	g := startGateway(t)
	g.apply(
		trustBundle("ca", a.ca), certificate("client", a.client), certificate("front", a.server),
		upstream("web", a.settings(), web), upstream("raw", a.settings(), raw),
	)
	for name, protocol := range map[string]adminv1.Protocol{"web": protocolHTTP, "raw": protocolTCP} {
		l := listener(name, protocol, name)
		l.Tls = &adminv1.ServerTls{Certificates: []string{"front"}}
		g.apply(l)
	}
	config := &tls.Config{RootCAs: pool(a.ca), ServerName: serverName, ClientSessionCache: tls.NewLRUClientSessionCache(8)}
	stream := dialTLS(t, g.address("raw"), config)
	if err := pingPong(stream, "before"); err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{TLSClientConfig: config.Clone(), ForceAttemptHTTP2: true}
	t.Cleanup(transport.CloseIdleConnections)
	ask := func() (reused bool) {
		t.Helper()
		ctx := httptrace.WithClientTrace(longContext(t), &httptrace.ClientTrace{GotConn: func(c httptrace.GotConnInfo) { reused = c.Reused }})
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+g.address("web")+"/", nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := transport.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		if body, err := readBody(resp); err != nil || body != "web" || resp.ProtoMajor != 2 {
			t.Errorf("%s %q, %v", resp.Proto, body, err)
		}
		return reused
	}
	ask()

	next := serverCert(t, a.ca, serverName)
	if _, err := g.admin.PutCertificate(longContext(t), &adminv1.PutCertificateRequest{Certificate: certificate("front", next)}); err != nil {
		t.Fatal(err)
	}
	if err := pingPong(stream, "after"); err != nil {
		t.Errorf("the running stream: %v", err)
	}
	if !ask() {
		t.Error("the running HTTP/2 connection was closed")
	}
	for _, name := range []string{"web", "raw"} {
		state := dialTLS(t, g.address(name), config).ConnectionState()
		if state.PeerCertificates[0].SerialNumber.Cmp(next.Leaf.SerialNumber) != 0 || state.DidResume {
			t.Errorf("%s: the next client got the serial %v, resumed %v", name, state.PeerCertificates[0].SerialNumber, state.DidResume)
		}
	}
}

func TestRotatedTrustInClients(t *testing.T) {
	t.Parallel()
	a, other := newAuthority(t), newAuthority(t)
	raw := serveConns(t, nil, echo)
	g := startGateway(t)
	l := listener("raw", protocolTCP, "raw")
	l.Tls = &adminv1.ServerTls{
		Certificates: []string{"front"},
		ClientAuth:   adminv1.ClientAuth_CLIENT_AUTH_REQUIRED, ClientTrustBundles: []string{"clients"},
	}
	g.apply(trustBundle("clients", a.ca), certificate("front", a.server), plainUpstream("raw", raw), l)

	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		g.apply(trustBundle("clients", a.ca))
		config := &tls.Config{
			RootCAs: pool(a.ca), ServerName: serverName, MaxVersion: version,
			Certificates: []tls.Certificate{keyPair(t, a.client)}, ClientSessionCache: tls.NewLRUClientSessionCache(8),
		}
		talk := func() (resumed bool, err error) {
			conn := tls.Client(dial(t, g.address("raw")), config)
			defer conn.Close()
			if err := conn.HandshakeContext(longContext(t)); err != nil {
				return false, err
			}
			return conn.ConnectionState().DidResume, pingPong(conn, "hello")
		}
		if _, err := talk(); err != nil {
			t.Fatal(err)
		}
		if resumed, err := talk(); err != nil || !resumed {
			t.Errorf("%s: before, resumed %v, %v", tls.VersionName(version), resumed, err)
		}
		g.apply(trustBundle("clients", other.ca))
		if resumed, err := talk(); err == nil || resumed {
			t.Errorf("%s: a client of an authority no longer trusted: resumed %v, %v", tls.VersionName(version), resumed, err)
		}
	}
}
