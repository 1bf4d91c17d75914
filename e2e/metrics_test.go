// The gateway exposes metrics to Prometheus at /metrics and sends them to
// statsd.

package e2e

import (
	"net"
	"strconv"
	"strings"
	"testing"
	"time"
)

func TestMetrics(t *testing.T) {
	t.Parallel()
	statsd, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = statsd.Close() })

	a := newAuthority(t)
	web := serveHTTPS(t, a.serverConfig(t), respondsWith("web"))
	raw := serveConns(t, a.serverConfig(t), echo)
	g, ops := startGatewayWithOps(t, "--statsd", statsd.LocalAddr().String())
	g.serveBoth(a, web, raw)
	for range 3 {
		get(t, "http://"+g.address("web")+"/")
		if _, err := exchange(t, g.address("raw"), "12345"); err != nil {
			t.Fatal(err)
		}
	}
	g.apply(upstream("stranger", nil, raw), listener("stranger", protocolTCP, "stranger"))
	if answer, _ := exchange(t, g.address("stranger"), "x"); answer != "" {
		t.Errorf("a server of an unknown CA answered %q", answer)
	}

	for sample, want := range map[string]string{
		`drawbridge_bridge_conn_accepted{listener="raw"}`:                                              "3",
		`drawbridge_bridge_bytes{direction="to_upstream",listener="raw"}`:                              "15",
		`drawbridge_bridge_bytes{direction="to_client",listener="raw"}`:                                "15",
		`drawbridge_bridge_http_requests{code="200",listener="web"}`:                                   "3",
		`drawbridge_upstream_handshakes{endpoint="` + raw + `",result="full",upstream="raw"}`:          "1",
		`drawbridge_upstream_handshakes{endpoint="` + raw + `",result="resumed",upstream="raw"}`:       "2",
		`drawbridge_upstream_failures{endpoint="` + raw + `",reason="UNKNOWN_CA",upstream="stranger"}`: "1",
		`drawbridge_gateway_revision`:                                                                  strconv.FormatInt(g.getStatus().GetRevision(), 10),
		`drawbridge_gateway_applies{result="applied"}`:                                                 "2",
	} {
		var last string
		eventually(t, sample+" is "+want, func() bool {
			_, body := get(t, "http://"+ops+"/metrics")
			for line := range strings.Lines(body) {
				if value, ok := strings.CutPrefix(strings.TrimSpace(line), sample+" "); ok {
					last = value
				}
			}
			return last == want
		})
	}
	_, body := get(t, "http://"+ops+"/metrics")
	if !strings.Contains(body, `expires_in_seconds{endpoint="",name="client",use="own"}`) {
		t.Error("no metric has the certificate's expiry")
	}

	_ = statsd.SetReadDeadline(time.Now().Add(testTimeout))
	packet := make([]byte, 64<<10)
	n, _, err := statsd.ReadFrom(packet)
	if err != nil || !strings.HasPrefix(string(packet[:n]), "drawbridge.") {
		t.Errorf("statsd received %q, %v", packet[:n], err)
	}
}
