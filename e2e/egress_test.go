// Connections of TCP and HTTP listeners, health checks and probes go through an egress
// proxy. Errors state whether the proxy or the server failed. No output contains the
// password.

package e2e

import (
	"fmt"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

const proxyPassword = "open-sesame-7711"

// An egressProxy is a running proxy.
type egressProxy struct {
	*daemon
	secure  string // the address where the proxy expects TLS, or ""
	demands bool   // credentials: "user" and proxyPassword
}

// via returns the settings to use the proxy with a password.
func (p *egressProxy) via(socks bool, password string) *adminv1.Via {
	var c *adminv1.ProxyCredentials
	if p.demands {
		c = &adminv1.ProxyCredentials{Username: "user", Password: password}
	}
	if socks {
		return &adminv1.Via{Kind: &adminv1.Via_Socks5{Socks5: &adminv1.Socks5{Address: p.addresses[0], Credentials: c}}}
	}
	return &adminv1.Via{Kind: &adminv1.Via_HttpConnect{HttpConnect: &adminv1.HttpConnect{Address: p.addresses[0], Credentials: c}}}
}

func startSquid(t testing.TB, a *authority) *egressProxy {
	t.Helper()
	program, helper := needFile(t, "/usr/sbin/squid"), needFile(t, "/usr/lib/squid/basic_ncsa_auth")
	dir := shortDir(t)
	a.writeServer(t, dir)
	hash := strings.TrimSpace(run(t, need(t, "openssl"), "passwd", "-apr1", proxyPassword))
	writeFile(t, filepath.Join(dir, "passwd"), []byte("user:"+hash+"\n"))
	as := unprivileged(t, "proxy", dir)
	d := startDaemon(t, 2, func(addresses []string) []string {
		conf := writeFile(t, filepath.Join(dir, "squid.conf"), []byte(fmt.Sprintf(`
http_port %s
https_port %s tls-cert=%s/server.pem tls-key=%[3]s/server.key
auth_param basic program %s %[3]s/passwd
acl users proxy_auth REQUIRED
http_access allow users
http_access deny all
cache deny all
pid_filename none
access_log none
cache_log /dev/null
coredump_dir %[3]s
shutdown_lifetime 0 seconds
`, addresses[0], addresses[1], dir, helper)))
		unprivileged(t, "proxy", dir)
		return append(as, program, "-N", "-f", conf)
	})
	return &egressProxy{d, d.addresses[1], true}
}

func startTinyproxy(t testing.TB, _ *authority) *egressProxy {
	t.Helper()
	program := needFile(t, "/usr/bin/tinyproxy")
	dir := shortDir(t)
	return &egressProxy{startDaemon(t, 1, func(addresses []string) []string {
		host, port, _ := net.SplitHostPort(addresses[0])
		conf := writeFile(t, filepath.Join(dir, "tinyproxy.conf"), []byte("Port "+port+"\nListen "+host+"\nTimeout 60\nBasicAuth user "+proxyPassword+"\n"))
		return []string{program, "-d", "-c", conf}
	}), "", true}
}

func startMicrosocks(t testing.TB, _ *authority) *egressProxy {
	t.Helper()
	program := needFile(t, "/usr/bin/microsocks")
	return &egressProxy{startDaemon(t, 1, func(addresses []string) []string {
		host, port, _ := net.SplitHostPort(addresses[0])
		return []string{program, "-i", host, "-p", port, "-u", "user", "-P", proxyPassword}
	}), "", true}
}

func startDante(t testing.TB, _ *authority) *egressProxy {
	t.Helper()
	program := needFile(t, "/usr/sbin/danted")
	dir := shortDir(t)
	return &egressProxy{startDaemon(t, 1, func(addresses []string) []string {
		host, port, _ := net.SplitHostPort(addresses[0])
		conf := writeFile(t, filepath.Join(dir, "danted.conf"), []byte(`
logoutput: stderr
internal: `+host+` port = `+port+`
external: lo
socksmethod: none
clientmethod: none
client pass { from: 127.0.0.1/32 to: 0.0.0.0/0 }
socks pass { from: 127.0.0.1/32 to: 0.0.0.0/0 }
`))
		// Dante has many processes, which must not keep the test's pipe open.
		return []string{"sh", "-c", `exec "$0" "$@" >/dev/null 2>&1`, program, "-f", conf, "-p", filepath.Join(dir, "pid")}
	}), "", false}
}

func TestConnectionsLeaveThroughAProxy(t *testing.T) {
	t.Parallel()
	for name, start := range map[string]func(testing.TB, *authority) *egressProxy{
		"squid": startSquid, "tinyproxy": startTinyproxy, "microsocks": startMicrosocks, "dante": startDante,
	} {
		t.Run(name, func(t *testing.T) {
			a := newAuthority(t)
			p := start(t, a)
			socks := name == "microsocks" || name == "dante"
			g := startGateway(t)
			via := func(u *adminv1.Upstream, v *adminv1.Via) *adminv1.Upstream {
				u.Via = v
				return u
			}
			good := func() *adminv1.Via { return p.via(socks, proxyPassword) }
			tcp, web := serveConns(t, a.serverConfig(t), echo), serveHTTPS(t, a.serverConfig(t), respondsWith("behind the proxy"))
			checked := via(upstream("tcp", a.settings(), tcp), good())
			checked.HealthCheck = &adminv1.HealthCheck{Kind: &adminv1.HealthCheck_Tls{Tls: &adminv1.TlsCheck{}}, Interval: durationpb.New(200 * time.Millisecond)}
			g.apply(trustBundle("ca", a.ca), certificate("client", a.client), checked, via(upstream("web", a.settings(), web), good()),
				via(upstream("unreachable", a.settings(), freeAddresses(t, 1)[0]), good()),
				listener("tcp", protocolTCP, "tcp"), listener("web", protocolHTTP, "web"))
			if p.secure != "" {
				secure := good()
				secure.GetHttpConnect().Address, secure.GetHttpConnect().Tls = p.secure, &adminv1.ProxyTls{TrustBundles: []string{"ca"}, ServerName: serverName}
				untrusting := good()
				untrusting.GetHttpConnect().Address, untrusting.GetHttpConnect().Tls = p.secure, &adminv1.ProxyTls{TrustBundles: []string{"ca"}, ServerName: "other.example.com"}
				g.apply(via(upstream("secure", a.settings(), tcp), secure), listener("secure", protocolTCP, "secure"),
					via(upstream("secure-web", a.settings(), web), secure), listener("secure-web", protocolHTTP, "secure-web"), via(upstream("untrusting", a.settings(), tcp), untrusting))
			}
			for _, l := range g.getStatus().GetListeners() {
				if strings.HasSuffix(l.GetName(), "web") {
					if code, body := get(t, "http://"+g.address(l.GetName())+"/"); code != 200 || body != "behind the proxy" {
						t.Errorf("%s: %d %s", l.GetName(), code, body)
					}
				} else if got, err := exchange(t, g.address(l.GetName()), strings.Repeat("hello", 100_000)); err != nil || got != strings.Repeat("hello", 100_000) {
					t.Errorf("%s: %d bytes, %v", l.GetName(), len(got), err)
				}
			}
			eventually(t, "the health check passes", func() bool {
				return g.upstream("tcp").GetEndpoints()[0].GetHealth() == adminv1.EndpointHealth_ENDPOINT_HEALTH_UP
			})
			if r := g.probe("tcp"); r.GetOutcome() != adminv1.ProbeOutcome_PROBE_OUTCOME_OK || !strings.Contains(r.GetExplanation(), "through the "+map[bool]string{true: "SOCKS5", false: "HTTP"}[socks]+" proxy "+p.addresses[0]) {
				t.Errorf("the probe: %v", r)
			}
			if r := g.probe("unreachable"); r.GetReason() != adminv1.Reason_REASON_CONNECT_REFUSED && r.GetReason() != adminv1.Reason_REASON_UNREACHABLE || !strings.Contains(r.GetExplanation(), "could not connect to the server") {
				t.Errorf("the probe of no server: %v", r)
			}
			if p.secure != "" {
				if r := g.probe("untrusting"); r.GetReason() != adminv1.Reason_REASON_EGRESS_PROXY_FAILED || !strings.Contains(r.GetExplanation(), "TLS handshake") {
					t.Errorf("the probe through an impostor: %v", r)
				}
			}
			if p.demands {
				g.apply(via(upstream("web", a.settings(), web), p.via(socks, "wrong-"+proxyPassword)))
				if r := g.probe("web"); r.GetReason() != adminv1.Reason_REASON_EGRESS_PROXY_REFUSED || !strings.Contains(r.GetExplanation(), "rejects the credentials") {
					t.Errorf("the probe with a wrong password: %v", r)
				}
				if code, _ := get(t, "http://"+g.address("web")+"/"); code != 502 && code != 503 {
					t.Errorf("with a wrong password: %d", code)
				}
			}
			p.signal(syscall.SIGTERM)
			eventually(t, "the proxy ends", func() bool { return refuses(p.addresses[0]) })
			if r := g.probe("tcp"); r.GetReason() != adminv1.Reason_REASON_EGRESS_PROXY_FAILED || !strings.Contains(r.GetExplanation(), "cannot be reached") {
				t.Errorf("the probe without the proxy: %v", r)
			}
			if got, err := exchange(t, g.address("tcp"), "hello"); got != "" || err == nil {
				t.Errorf("the client got %q, %v", got, err)
			}
			eventually(t, "the health check says that the proxy failed", func() bool {
				return g.upstream("tcp").GetEndpoints()[0].GetCheck().GetReason() == adminv1.Reason_REASON_EGRESS_PROXY_FAILED
			})
			// Use another upstream, because Dante continues to serve existing tunnels.
			g.apply(via(upstream("later", a.settings(), web), good()), listener("later", protocolHTTP, "later"))
			if code, _ := get(t, "http://"+g.address("later")+"/"); code != 502 && code != 503 {
				t.Errorf("a request without the proxy: %d", code)
			}
			for _, name := range []string{"tcp", "later"} {
				if failures := g.upstream(name).GetEndpoints()[0].GetFailures(); !slices.ContainsFunc(failures, func(f *adminv1.FailureCount) bool {
					return f.GetReason() == adminv1.Reason_REASON_EGRESS_PROXY_FAILED
				}) {
					t.Errorf("%s: the failures are %v", name, failures)
				}
			}
			shown := g.cli("get", "upstream", "-o", "yaml").stdout + g.cli("status", "-o", "json").stdout + g.out.String()
			if strings.Contains(shown, proxyPassword) || !strings.Contains(shown, p.addresses[0]) {
				t.Errorf("the gateway shows: %s", shown)
			}
		})
	}
}
