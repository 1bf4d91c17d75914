// A TLS listener presents the certificate of the requested name, accepts only
// permitted clients, and offloads TLS for plaintext upstreams. A session of one
// listener gives no access to another.

package e2e

import (
	"crypto/tls"
	"io"
	"net"
	"path/filepath"
	"testing"

	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

func TestTLSListener(t *testing.T) {
	t.Parallel()
	a, stranger := newAuthority(t), newAuthority(t)
	address := serveConns(t, nil, echo)
	socket := filepath.Join(shortDir(t), "app.sock")
	serveUnix(t, socket, echo)

	g := startGateway(t)
	open := listener("open", protocolTCP, "address")
	open.Tls = &adminv1.ServerTls{Certificates: []string{"front", "other"}}
	strict := listener("strict", protocolTCP, "socket")
	strict.Tls = &adminv1.ServerTls{
		Certificates: []string{"front"}, RejectUnknownSni: true,
		ClientAuth: adminv1.ClientAuth_CLIENT_AUTH_REQUIRED, ClientTrustBundles: []string{"ca"},
	}
	g.apply(
		trustBundle("ca", a.ca), certificate("front", a.server), certificate("other", serverCert(t, a.ca, "other.example.com")),
		plainUpstream("address", address), plainUpstream("socket", "unix:"+socket), open, strict,
	)

	// talk reports whether the listener echoes a client's bytes, and returns the
	// certificate that the client saw. A server may reject a client after the
	// client's handshake.
	talk := func(name string, config *tls.Config) (tls.ConnectionState, error) {
		config.RootCAs = pool(a.ca)
		conn := tls.Client(dial(t, g.address(name)), config)
		defer conn.Close()
		if err := conn.HandshakeContext(longContext(t)); err != nil {
			return tls.ConnectionState{}, err
		}
		err := pingPong(conn, "hello")
		return conn.ConnectionState(), err
	}
	for _, name := range []string{serverName, "other.example.com"} {
		state, err := talk("open", &tls.Config{ServerName: name})
		if err != nil || state.PeerCertificates[0].Subject.CommonName != name {
			t.Errorf("asked for %s: %v", name, err)
		}
	}
	mine := []tls.Certificate{keyPair(t, a.client)}
	if _, err := talk("strict", &tls.Config{ServerName: serverName, Certificates: mine}); err != nil {
		t.Errorf("a client with a certificate: %v", err)
	}
	for what, config := range map[string]*tls.Config{
		"without a certificate":            {ServerName: serverName},
		"with a certificate of another CA": {ServerName: serverName, Certificates: []tls.Certificate{keyPair(t, stranger.client)}},
		"with a server's certificate":      {ServerName: serverName, Certificates: []tls.Certificate{keyPair(t, a.server)}},
		"that asks for an unknown name":    {ServerName: "unknown.example.com", InsecureSkipVerify: true, Certificates: mine},
		"that asks for no name":            {InsecureSkipVerify: true, Certificates: mine},
		"with TLS 1.1":                     {ServerName: serverName, Certificates: mine, MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11},
	} {
		if _, err := talk("strict", config); err == nil {
			t.Errorf("a client %s was admitted", what)
		}
	}

	// A ticket of the open listener gives no access to the strict one.
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		config := &tls.Config{ServerName: serverName, MaxVersion: version, ClientSessionCache: tls.NewLRUClientSessionCache(8)}
		for i := range 2 {
			if state, err := talk("open", config); err != nil || state.DidResume != (i > 0) {
				t.Errorf("connection %d with %s: resumed %v, %v", i, tls.VersionName(version), state.DidResume, err)
			}
		}
		if state, err := talk("strict", config); err == nil || state.DidResume {
			t.Errorf("with a ticket of another listener and %s: resumed %v, %v", tls.VersionName(version), state.DidResume, err)
		}
	}
}

// serveUnix is serveConns on a unix socket.
func serveUnix(t testing.TB, path string, handle func(net.Conn)) {
	t.Helper()
	ln, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	serveOn(t, ln, nil, handle)
}

// A plaintext client of a TLS listener gets no answer.
func TestPlaintextAtATLSListener(t *testing.T) {
	t.Parallel()
	a := newAuthority(t)
	raw := serveConns(t, nil, echo)
	g := startGateway(t)
	secure := listener("secure", protocolTCP, "raw")
	secure.Tls = &adminv1.ServerTls{Certificates: []string{"front"}}
	g.apply(certificate("front", a.server), plainUpstream("raw", raw), secure)
	conn := dial(t, g.address("secure"))
	if _, err := io.WriteString(conn, "plaintext that must not be echoed\n"); err != nil {
		t.Fatal(err)
	}
	_ = conn.CloseWrite()
	answer, _ := io.ReadAll(conn)
	if len(answer) > 7 { // at most a TLS alert
		t.Errorf("the listener answered %q", answer)
	}
	if e := g.upstream("raw").GetEndpoints()[0]; e.GetConnectionsMade() != 0 {
		t.Errorf("the upstream was reached: %v", e)
	}
}
