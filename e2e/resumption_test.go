// Resumption never skips a check. The handshake is full after a change of the
// trust bundle, a revocation list or the names, between upstreams that share an
// address, and between listeners. The peer always sees the current identity.

package e2e

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/drawbridge-gateway/drawbridge/certs/pki"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
	"google.golang.org/protobuf/proto"
)

// serveIdentity answers each connection with the common name of its client's
// certificate, the SNI, and whether the session was resumed.
func serveIdentity(t testing.TB, config *tls.Config) string {
	t.Helper()
	return serveConns(t, config, func(conn net.Conn) {
		c := conn.(*tls.Conn)
		if c.HandshakeContext(t.Context()) != nil {
			return
		}
		state := c.ConnectionState()
		how := "full"
		if state.DidResume {
			how = "resumed"
		}
		name := "anonymous"
		if len(state.PeerCertificates) > 0 {
			name = state.PeerCertificates[0].Subject.CommonName
		}
		_, _ = fmt.Fprint(c, name, " ", state.ServerName, " ", how)
		_ = c.CloseWrite()
	})
}

// serveIdentityHTTP is serveIdentity over HTTP/1.1, with one request per connection.
func serveIdentityHTTP(t testing.TB, config *tls.Config) string {
	t.Helper()
	config = config.Clone()
	config.NextProtos = []string{"http/1.1"}
	return serveHTTPS(t, config, func(w http.ResponseWriter, r *http.Request) {
		how := "full"
		if r.TLS.DidResume {
			how = "resumed"
		}
		w.Header().Set("Connection", "close")
		_, _ = fmt.Fprint(w, r.TLS.PeerCertificates[0].Subject.CommonName, " ", r.TLS.ServerName, " ", how)
	})
}

// seenTCP and seenHTTP return serveIdentity's answer, or "" without one.
func seenTCP(t testing.TB, g *gateway, listener string) string {
	t.Helper()
	answer, _ := exchange(t, g.address(listener), "")
	return answer
}

func seenHTTP(t testing.TB, g *gateway, listener, host string) string {
	t.Helper()
	req, err := http.NewRequestWithContext(longContext(t), http.MethodGet, "http://"+g.address(listener)+"/", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Host = host
	resp, err := oneRequestClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	body, err := readBody(resp)
	if err != nil {
		t.Fatal(err)
	}
	if resp.StatusCode != http.StatusOK {
		return ""
	}
	return body
}

func TestUpstreamsThatShareAnAddressShareNoSession(t *testing.T) {
	t.Parallel()
	a, other := newAuthority(t), newAuthority(t)
	config := a.serverConfig(t)
	config.Certificates = append(config.Certificates, keyPair(t, serverCert(t, a.ca, "other.example.com")))
	raw, web := serveIdentity(t, config), serveIdentityHTTP(t, config)
	g := startGateway(t)
	g.apply(
		trustBundle("ca", a.ca), trustBundle("other", other.ca),
		certificate("alice", clientCert(t, a.ca, "alice")), certificate("bob", clientCert(t, a.ca, "bob")),
	)
	for _, v := range bothVersions {
		put := func(name, certificate, bundle, server string) {
			settings := &adminv1.UpstreamTls{Certificate: certificate, TrustBundles: []string{bundle}, ServerName: server, MinVersion: v.ours, MaxVersion: v.ours}
			g.apply(
				upstream("tcp-"+name+v.name, settings, raw), listener("tcp-"+name+v.name, protocolTCP, "tcp-"+name+v.name),
				upstream("http-"+name+v.name, settings, web), listener("http-"+name+v.name, protocolHTTP, "http-"+name+v.name),
			)
		}
		put("alice", "alice", "ca", serverName)
		put("bob", "bob", "ca", serverName)
		put("named", "alice", "ca", "other.example.com")
		put("strict", "alice", "other", serverName)
		for round := range 3 {
			how := "full"
			if round > 0 {
				how = "resumed"
			}
			for name, want := range map[string]string{
				"alice": "alice " + serverName + " " + how, "bob": "bob " + serverName + " " + how,
				"named": "alice other.example.com " + how, "strict": "", // this upstream trusts another CA
			} {
				if got := seenTCP(t, g, "tcp-"+name+v.name); got != want {
					t.Errorf("TLS %s round %d, TCP: %s is seen as %q, want %q", v.name, round, name, got, want)
				}
				if got := seenHTTP(t, g, "http-"+name+v.name, ""); got != want {
					t.Errorf("TLS %s round %d, HTTP: %s is seen as %q, want %q", v.name, round, name, got, want)
				}
			}
		}
	}
}

// With FROM_HOST an upstream has many names; sessions are not shared between them.
func TestHostsDoNotShareSessions(t *testing.T) {
	t.Parallel()
	a := newAuthority(t)
	config := a.serverConfig(t)
	config.Certificates = []tls.Certificate{keyPair(t, serverCert(t, a.ca, "one.example.com")), keyPair(t, serverCert(t, a.ca, "two.example.com"))}
	g := startGateway(t)
	settings := a.settings()
	settings.ServerName, settings.ServerNameSource = "", adminv1.ServerNameSource_SERVER_NAME_SOURCE_FROM_HOST
	front := listener("raw", protocolTCP, "raw")
	front.Tls = &adminv1.ServerTls{Certificates: []string{"front"}}
	g.apply(
		trustBundle("ca", a.ca), certificate("client", a.client), certificate("front", a.server),
		upstream("raw", settings, serveIdentity(t, config)), front,
		upstream("web", settings, serveIdentityHTTP(t, config)), listener("web", protocolHTTP, "web"),
	)
	tcp := func(name string) string {
		conn := dialTLS(t, g.address("raw"), &tls.Config{ServerName: name, InsecureSkipVerify: true})
		defer conn.Close()
		var seen strings.Builder
		for buf := make([]byte, 256); ; {
			n, err := conn.Read(buf)
			seen.Write(buf[:n])
			if err != nil {
				return seen.String()
			}
		}
	}
	for round := range 3 {
		how := "full"
		if round > 0 {
			how = "resumed"
		}
		for _, host := range []string{"one.example.com", "two.example.com"} {
			want := "e2e client " + host + " " + how
			if got := seenHTTP(t, g, "web", host); got != want {
				t.Errorf("round %d, HTTP: %q, want %q", round, got, want)
			}
			if got := tcp(host); got != want {
				t.Errorf("round %d, TCP: %q, want %q", round, got, want)
			}
		}
		// The server does not have this name, so it presents its default certificate.
		if got := seenHTTP(t, g, "web", "three.example.com") + tcp("three.example.com"); got != "" {
			t.Errorf("round %d: a host whose name does not verify got %q", round, got)
		}
	}
	for _, name := range []string{"web", "raw"} {
		e := g.upstream(name).GetEndpoints()[0]
		if e.GetLastFailure().GetReason() != adminv1.Reason_REASON_NAME_MISMATCH {
			t.Errorf("%s: the last failure is %v", name, e.GetLastFailure())
		}
		// A client must not be able to mark an endpoint down.
		if e.GetHealth() != adminv1.EndpointHealth_ENDPOINT_HEALTH_UP {
			t.Errorf("%s: the endpoint is %v", name, e.GetHealth())
		}
	}
}

// After any change to verification, older sessions are not resumed.
func TestASessionToAnUpstreamDoesNotOutliveItsVerification(t *testing.T) {
	t.Parallel()
	a, other := newAuthority(t), newAuthority(t)
	for _, v := range bothVersions {
		for _, source := range []adminv1.ServerNameSource{adminv1.ServerNameSource_SERVER_NAME_SOURCE_FIXED, adminv1.ServerNameSource_SERVER_NAME_SOURCE_NONE} {
			t.Run(v.name+"-"+source.String(), func(t *testing.T) {
				t.Parallel()
				g := startGateway(t)
				settings := func() *adminv1.UpstreamTls {
					s := a.settings()
					s.MinVersion, s.MaxVersion, s.ServerNameSource = v.ours, v.ours, source
					return s
				}
				tcp, web := serveIdentity(t, a.serverConfig(t)), serveIdentityHTTP(t, a.serverConfig(t))
				put := func(s *adminv1.UpstreamTls) { g.apply(upstream("raw", s, tcp), upstream("web", s, web)) }
				g.apply(trustBundle("ca", a.ca), trustBundle("other", other.ca), certificate("client", a.client))
				put(settings())
				g.apply(listener("raw", protocolTCP, "raw"), listener("web", protocolHTTP, "web"))
				for _, change := range []struct {
					what     string
					to, undo func()
					reason   adminv1.Reason
				}{
					{
						"the certificate is revoked",
						func() { g.apply(withCRLs(trustBundle("ca", a.ca), crl(t, a.ca, a.server))) },
						func() { g.apply(withCRLs(trustBundle("ca", a.ca), crl(t, a.ca))) },
						adminv1.Reason_REASON_REVOKED,
					},
					{
						"other trust bundles", func() { g.apply(trustBundle("ca", other.ca)) }, func() { g.apply(trustBundle("ca", a.ca)) },
						adminv1.Reason_REASON_UNKNOWN_CA,
					},
					{
						"other CAs in the bundle",
						func() { s := settings(); s.TrustBundles = []string{"other"}; put(s) }, func() { put(settings()) },
						adminv1.Reason_REASON_UNKNOWN_CA,
					},
					{
						"another name to verify",
						func() { s := settings(); s.VerifyName = "pay.example.com"; put(s) }, func() { put(settings()) },
						adminv1.Reason_REASON_NAME_MISMATCH,
					},
					{
						"a pin is set",
						func() {
							s := settings()
							s.SpkiPins = []string{"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="}
							put(s)
						}, func() { put(settings()) },
						adminv1.Reason_REASON_PIN_MISMATCH,
					},
				} {
					for range 2 { // the second has a session to resume
						if seenTCP(t, g, "raw") == "" || seenHTTP(t, g, "web", "") == "" {
							t.Fatalf("before %s: no answer", change.what)
						}
					}
					if !strings.HasSuffix(seenTCP(t, g, "raw"), " resumed") || !strings.HasSuffix(seenHTTP(t, g, "web", ""), " resumed") {
						t.Errorf("before %s: no session was resumed, so the test is meaningless", change.what)
					}
					change.to()
					for range 2 {
						if got := seenTCP(t, g, "raw") + seenHTTP(t, g, "web", ""); got != "" {
							t.Errorf("when %s, the upstream answered %q", change.what, got)
						}
					}
					expectReason(t, g, "raw", change.reason)
					expectReason(t, g, "web", change.reason)
					change.undo()
				}
			})
		}
	}
}

// Each full handshake counts with its reason.
func TestWhyHandshakesAreFull(t *testing.T) {
	t.Parallel()
	a := newAuthority(t)
	config := a.serverConfig(t)
	config.SetSessionTicketKeys([][32]byte{{1}})
	raw := serveIdentity(t, config)
	g := startGateway(t)
	once := a.settings()
	once.SessionReuse = proto.Bool(false)
	g.apply(
		trustBundle("ca", a.ca), certificate("client", a.client),
		upstream("raw", a.settings(), raw), listener("raw", protocolTCP, "raw"),
		upstream("off", once, raw), listener("off", protocolTCP, "off"),
	)
	expect := func(name, seen string, reason adminv1.FullHandshakeReason, count int64) {
		t.Helper()
		if got := seenTCP(t, g, name); got != seen {
			t.Errorf("the upstream saw %q, want %q", got, seen)
		}
		if got := g.full(name, reason); got != count {
			t.Errorf("%s: %d full handshakes for %v, want %d: %v", name, got, reason, count, g.upstream(name).GetEndpoints()[0].GetFullHandshakes())
		}
	}
	full, resumed := "e2e client "+serverName+" full", "e2e client "+serverName+" resumed"
	expect("off", full, adminv1.FullHandshakeReason_FULL_HANDSHAKE_REASON_REUSE_OFF, 1)
	expect("off", full, adminv1.FullHandshakeReason_FULL_HANDSHAKE_REASON_REUSE_OFF, 2)
	expect("raw", full, adminv1.FullHandshakeReason_FULL_HANDSHAKE_REASON_NO_TICKET, 1)
	expect("raw", resumed, adminv1.FullHandshakeReason_FULL_HANDSHAKE_REASON_NO_TICKET, 1)

	resp, err := g.diagnostics.FlushSessions(longContext(t), &adminv1.FlushSessionsRequest{Upstream: "raw"})
	if err != nil || resp.GetFlushed() == 0 {
		t.Errorf("flushed %d, %v", resp.GetFlushed(), err)
	}
	expect("raw", full, adminv1.FullHandshakeReason_FULL_HANDSHAKE_REASON_FLUSHED, 1)
	expect("raw", resumed, adminv1.FullHandshakeReason_FULL_HANDSHAKE_REASON_FLUSHED, 1)

	config.SetSessionTicketKeys([][32]byte{{2}})
	expect("raw", full, adminv1.FullHandshakeReason_FULL_HANDSHAKE_REASON_REFUSED, 1)
	expect("raw", resumed, adminv1.FullHandshakeReason_FULL_HANDSHAKE_REASON_REFUSED, 1)

	g.apply(certificate("client", clientCert(t, a.ca, "successor")))
	expect("raw", "successor "+serverName+" full", adminv1.FullHandshakeReason_FULL_HANDSHAKE_REASON_CREDENTIALS_CHANGED, 1)
	expect("raw", "successor "+serverName+" resumed", adminv1.FullHandshakeReason_FULL_HANDSHAKE_REASON_CREDENTIALS_CHANGED, 1)
}

// A listener's ticket does not give a client access that it no longer has.
func TestATicketGivesNoAccessToAnotherListener(t *testing.T) {
	t.Parallel()
	a, other := newAuthority(t), newAuthority(t)
	raw, web := serveConns(t, nil, echo), serveConns(t, nil, func(conn net.Conn) {
		_, _ = conn.Read(make([]byte, 4096))
		_, _ = fmt.Fprint(conn, "HTTP/1.1 200 OK\r\nContent-Length: 7\r\nConnection: close\r\n\r\nreached")
	})
	g := startGateway(t)
	g.apply(
		trustBundle("clients", a.ca), trustBundle("others", other.ca), certificate("front", a.server),
		plainUpstream("raw", raw), plainUpstream("web", web),
	)
	put := func(name string, protocol adminv1.Protocol, upstream, bundle string, names ...string) {
		l := listener(name, protocol, upstream)
		l.Tls = &adminv1.ServerTls{
			Certificates: []string{"front"}, ClientAuth: adminv1.ClientAuth_CLIENT_AUTH_REQUIRED,
			ClientTrustBundles: []string{bundle}, ClientSubjectAltNames: names,
		}
		g.apply(l)
	}
	put("raw", protocolTCP, "raw", "clients")
	put("web", protocolHTTP, "web", "clients")
	put("raw-other", protocolTCP, "raw", "others")
	put("web-other", protocolHTTP, "web", "others")
	put("raw-named", protocolTCP, "raw", "clients", "URI:spiffe://corp/pay")
	client := issue(t, a.ca, pki.LeafOptions{CommonName: "client", URIs: []string{"spiffe://corp/web"}, Usage: pki.Client})

	for _, v := range bothVersions {
		config := &tls.Config{
			RootCAs: pool(a.ca), ServerName: serverName, MinVersion: v.wire, MaxVersion: v.wire,
			Certificates: []tls.Certificate{keyPair(t, client)}, ClientSessionCache: tls.NewLRUClientSessionCache(8),
		}
		talk := func(name string) (resumed bool, err error) {
			conn := tls.Client(dial(t, g.address(name)), config)
			defer conn.Close()
			if err := conn.HandshakeContext(longContext(t)); err != nil {
				return false, err
			}
			resumed = conn.ConnectionState().DidResume
			if strings.HasPrefix(name, "raw") {
				return resumed, pingPong(conn, "hello")
			}
			return resumed, askOver(t.Context(), conn)
		}
		for _, name := range []string{"raw", "web"} {
			config.ClientSessionCache = tls.NewLRUClientSessionCache(8)
			warm := func() {
				t.Helper()
				for i := range 2 {
					if resumed, err := talk(name); err != nil || resumed != (i > 0) {
						t.Fatalf("TLS %s %s, connection %d: resumed %v, %v", v.name, name, i, resumed, err)
					}
				}
			}
			warm()
			if resumed, err := talk(name + "-other"); err == nil || resumed {
				t.Errorf("TLS %s: a ticket of %s at a listener with another trust: resumed %v, %v", v.name, name, resumed, err)
			}
			if name == "raw" {
				if resumed, err := talk("raw-named"); err == nil || resumed {
					t.Errorf("TLS %s: a ticket of %s at a listener that requires another name: resumed %v, %v", v.name, name, resumed, err)
				}
			}
			for what, change := range map[string]struct{ to, undo func() }{
				"revoked": {
					func() { g.apply(withCRLs(trustBundle("clients", a.ca), crl(t, a.ca, client))) },
					func() { g.apply(trustBundle("clients", a.ca)) },
				},
				"without a current revocation list": {
					func() {
						g.apply(withCRLs(trustBundle("clients", a.ca), crlWith(t, a.ca, outdated)))
					},
					func() { g.apply(trustBundle("clients", a.ca)) },
				},
				"no longer trusted": {
					func() { g.apply(trustBundle("clients", other.ca)) },
					func() { g.apply(trustBundle("clients", a.ca)) },
				},
			} {
				config.ClientSessionCache = tls.NewLRUClientSessionCache(8)
				warm()
				change.to()
				for range 2 {
					// Tickets outlive a change of the lists, so the handshake may be resumed. The
					// gateway still verifies the client, and refuses it.
					if resumed, err := talk(name); err == nil {
						t.Errorf("TLS %s: a client %s at %s: resumed %v, %v", v.name, what, name, resumed, err)
					}
				}
				change.undo()
			}
		}
	}
}

// askOver makes one HTTP request on a connection.
func askOver(ctx context.Context, conn net.Conn) error {
	client := &http.Client{Transport: &http.Transport{
		DialContext:       func(context.Context, string, string) (net.Conn, error) { return conn, nil },
		DisableKeepAlives: true,
	}}
	ctx, cancel := context.WithTimeout(ctx, testTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+serverName+"/", nil)
	if err != nil {
		return err
	}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	if body, err := readBody(resp); err != nil || resp.StatusCode != http.StatusOK || body != "reached" {
		return fmt.Errorf("%d %q, %v", resp.StatusCode, body, err)
	}
	return nil
}
