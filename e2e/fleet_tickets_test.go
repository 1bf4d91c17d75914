package e2e

import (
	"net/http"
	"path/filepath"
	"strings"
	"testing"

	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

func TestAClientResumesAtAnotherGateway(t *testing.T) {
	t.Parallel()
	openssl := need(t, "openssl")
	a := newAuthority(t)
	cluster := startEtcd(t, a, 1)
	join := func(id string) *gateway {
		return startGatewayOn(t, filepath.Join(shortDir(t), "data"), append(cluster.flags(), "--gateway-id", id)...)
	}
	first, second := join("a"), join("b")
	web := listener("web", protocolHTTP, "")
	web.Tls = &adminv1.ServerTls{Certificates: []string{"server"}, ClientAuth: adminv1.ClientAuth_CLIENT_AUTH_REQUIRED, ClientTrustBundles: []string{"ca"}}
	first.eventuallyApplies(trustBundle("ca", a.ca), certificate("server", a.server), web, answer("served", http.StatusOK))
	await := func(g *gateway) string {
		eventually(t, "the listener is up", func() bool {
			for _, l := range g.getStatus().GetListeners() {
				if l.GetState() == adminv1.ListenerState_LISTENER_STATE_UP {
					return true
				}
			}
			return false
		})
		return g.address("web")
	}
	dir := shortDir(t)
	root := writeFile(t, filepath.Join(dir, "ca.pem"), a.ca.RootPEM())
	cert, key := writeFile(t, filepath.Join(dir, "client.pem"), a.client.ChainPEM), writeFile(t, filepath.Join(dir, "client.key"), a.client.KeyPEM)
	request := func(address string, args ...string) string {
		r := commandInput(t, "GET /r HTTP/1.0\r\nHost: "+serverName+"\r\n\r\n", openssl, append([]string{"s_client", "-ign_eof", "-connect", address, "-servername", serverName,
			"-CAfile", root, "-verify_return_error", "-cert", cert, "-key", key}, args...)...)
		if !strings.Contains(r.stdout, "served") {
			t.Fatalf("openssl s_client %v: %v", args, r)
		}
		return r.stdout
	}
	for _, version := range []string{"-tls1_2", "-tls1_3"} {
		ticket := filepath.Join(dir, "ticket"+version)
		if got := request(await(first), version, "-sess_out", ticket); !strings.Contains(got, "New, TLSv1") {
			t.Errorf("%s: the first handshake: %s", version, got)
		}
		if got := request(await(second), version, "-sess_in", ticket); !strings.Contains(got, "Reused, TLSv1") {
			t.Errorf("%s: at the other gateway: %s", version, got)
		}
	}
	if s := second.getStatus().GetFleet(); s.GetTicketsTime() == nil || s.GetTicketsError() != "" {
		t.Errorf("the status of the fleet: %v", s)
	}
}
