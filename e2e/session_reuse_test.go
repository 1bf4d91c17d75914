// TLS sessions with an upstream are resumed over HTTP and TCP and in both TLS
// versions, but never with session_reuse off. nginx reports which sessions were
// resumed.

package e2e

import (
	"fmt"
	"testing"

	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
	"google.golang.org/protobuf/proto"
)

func TestSessionsAreResumed(t *testing.T) {
	t.Parallel()
	a := newAuthority(t)
	n := startNginx(t, nginxConfig{
		ports: 2,
		files: nginxFiles(a.ca, a.server),
		// nginx closes after each request, so each needs a handshake.
		http: func(n *nginx) string {
			return fmt.Sprintf(`server {
    listen %s ssl;
    %s
    keepalive_timeout 0;
    ssl_session_cache shared:http:1m;
    return 200 "$ssl_protocol $ssl_session_reused $ssl_client_verify";
  }`, n.address(0), n.mutualTLS())
		},
		stream: func(n *nginx) string {
			return fmt.Sprintf(`server {
    listen %s ssl;
    %s
    ssl_session_cache shared:stream:1m;
    return "$ssl_protocol $ssl_session_reused $ssl_client_verify";
  }`, n.address(1), n.mutualTLS())
		},
	})
	g := startGateway(t)
	g.apply(trustBundle("ca", a.ca), certificate("client", a.client))

	const connections = 6
	for _, c := range []struct {
		name    string
		highest adminv1.TlsVersion
		reuse   *bool
		later   string // nginx's answer on all connections except the first
		resumed int64
	}{
		{"tls13", adminv1.TlsVersion_TLS_VERSION_1_3, nil, "TLSv1.3 r SUCCESS", connections - 1},
		{"tls12", adminv1.TlsVersion_TLS_VERSION_1_2, nil, "TLSv1.2 r SUCCESS", connections - 1},
		{"tls13-off", adminv1.TlsVersion_TLS_VERSION_1_3, proto.Bool(false), "TLSv1.3 . SUCCESS", 0},
		{"tls12-off", adminv1.TlsVersion_TLS_VERSION_1_2, proto.Bool(false), "TLSv1.2 . SUCCESS", 0},
	} {
		settings := &adminv1.UpstreamTls{
			Certificate: "client", TrustBundles: []string{"ca"}, ServerName: serverName,
			MaxVersion: c.highest, SessionReuse: c.reuse,
		}
		web, raw := "http-"+c.name, "tcp-"+c.name
		g.apply(
			upstream(web, settings, n.address(0)), listener(web, protocolHTTP, web),
			upstream(raw, settings, n.address(1)), listener(raw, protocolTCP, raw),
		)
		for i := range connections {
			_, body := get(t, "http://"+g.address(web)+"/")
			answer, err := exchange(t, g.address(raw), "")
			if err != nil {
				t.Error(err)
			}
			if i == 0 {
				continue // the first connection has no session to resume
			}
			if body != c.later {
				t.Errorf("%s: nginx saw %q in request %d, want %q", web, body, i, c.later)
			}
			if answer != c.later {
				t.Errorf("%s: nginx saw %q in connection %d, want %q", raw, answer, i, c.later)
			}
		}
		for _, name := range []string{web, raw} {
			e := g.upstream(name).GetEndpoints()[0]
			if e.GetHandshakesResumed() != c.resumed || e.GetHandshakesFull() != connections-c.resumed {
				t.Errorf("%s: %d handshakes full and %d resumed, want %d and %d", name,
					e.GetHandshakesFull(), e.GetHandshakesResumed(), connections-c.resumed, c.resumed)
			}
		}
	}
}
