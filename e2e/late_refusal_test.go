// A TLS 1.3 server verifies the client's certificate after the client has
// finished the handshake, and then closes the connection. The failure is always
// reported as a rejected certificate, never as a closed connection, whether the
// request or the alert arrives first.

package e2e

import (
	"fmt"
	"sync"
	"testing"

	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

func TestLateRefusalsAreNotReportedAsClosedConnections(t *testing.T) {
	t.Parallel()
	a := newAuthority(t)
	stranger := clientCert(t, newCA(t, "another root"), "stranger")
	web, raw := serveHTTPS(t, a.serverConfig(t), respondsWith("reached")), serveConns(t, a.serverConfig(t), echo)
	g := startGateway(t)
	g.apply(trustBundle("ca", a.ca), certificate("stranger", stranger))
	for _, certificate := range []string{"", "stranger"} {
		want := adminv1.Reason_REASON_CLIENT_CERTIFICATE_REQUIRED
		if certificate != "" {
			want = adminv1.Reason_REASON_CLIENT_CERTIFICATE_REJECTED
		}
		for _, protocol := range []adminv1.HttpProtocol{adminv1.HttpProtocol_HTTP_PROTOCOL_1_1, adminv1.HttpProtocol_HTTP_PROTOCOL_2, adminv1.HttpProtocol_HTTP_PROTOCOL_UNSPECIFIED} {
			name := fmt.Sprint("up-", certificate, "-", int(protocol))
			settings := &adminv1.UpstreamTls{Certificate: certificate, TrustBundles: []string{"ca"}, ServerName: serverName, MinVersion: adminv1.TlsVersion_TLS_VERSION_1_3}
			tcp := protocol == adminv1.HttpProtocol_HTTP_PROTOCOL_UNSPECIFIED // the third case is TCP
			u, l := upstream(name, settings, web), listener(name, protocolHTTP, name)
			if tcp {
				u, l = upstream(name, settings, raw), listener(name, protocolTCP, name)
			}
			u.Http = &adminv1.UpstreamHttp{Protocol: protocol}
			g.apply(u, l)
			address := g.address(name)
			each, clients := 12, 4
			if protocol == adminv1.HttpProtocol_HTTP_PROTOCOL_2 {
				// Requests that share a connection share its failure.
				each, clients = each*clients, 1
			}
			var all sync.WaitGroup
			for range clients {
				all.Go(func() {
					for range each {
						if tcp {
							if answer, err := exchange(t, address, "hello"); answer != "" || err == nil {
								t.Errorf("%s: %q, %v", name, answer, err)
							}
						} else if code, body, err := tryGet(t, oneRequestClient, "http://"+address+"/"); err != nil || code != 502 {
							t.Errorf("%s: %d %q, %v", name, code, body, err)
						}
					}
				})
			}
			all.Wait()
			eventually(t, "every refusal of "+name+" is counted", func() bool {
				var n int64
				for _, f := range g.upstream(name).GetEndpoints()[0].GetFailures() {
					n += f.GetCount()
				}
				return n >= int64(each*clients)
			})
			if f := g.upstream(name).GetEndpoints()[0].GetFailures(); len(f) != 1 || f[0].GetReason() != want {
				t.Errorf("%s: failures are %v, want only %v", name, f, want)
			}
		}
	}
}
