// Plaintext HTTP and TCP clients reach a group of real nginx servers that
// require a client certificate, even after one of the servers has died.

package e2e

import (
	"fmt"
	"strings"
	"testing"

	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

func TestUpstreamGroupOfNginxOverMutualTLS(t *testing.T) {
	t.Parallel()
	a := newAuthority(t)
	member := func(name, listen string) *nginx {
		return startNginx(t, nginxConfig{
			ports: 2,
			files: nginxFiles(a.ca, a.server),
			http: func(n *nginx) string {
				return fmt.Sprintf(`server {
    listen %s %s;
    %s
    return 200 "%s $server_protocol $ssl_client_verify $ssl_client_s_dn";
  }`, n.address(0), listen, n.mutualTLS(), name)
			},
			stream: func(n *nginx) string {
				return fmt.Sprintf(`server {
    listen %s ssl;
    %s
    return "%s $ssl_client_verify $ssl_client_s_dn";
  }`, n.address(1), n.mutualTLS(), name)
			},
		})
	}
	one, two := member("one", "ssl"), member("two", "ssl http2")

	g := startGateway(t)
	settings := a.settings()
	g.apply(
		trustBundle("ca", a.ca), certificate("client", a.client),
		upstream("web", settings, one.address(0), two.address(0)),
		upstream("raw", settings, one.address(1), two.address(1)),
		listener("web", protocolHTTP, "web"), listener("raw", protocolTCP, "raw"),
	)
	web, raw := "http://"+g.address("web")+"/", g.address("raw")

	// Both members answer, each with its best HTTP version.
	answers := map[string]int{}
	for range 8 {
		code, body := get(t, web)
		if code != 200 {
			t.Fatalf("HTTP: %d %q", code, body)
		}
		answers[body]++
	}
	want := map[string]int{
		"one HTTP/1.1 SUCCESS CN=e2e client": 4,
		"two HTTP/2.0 SUCCESS CN=e2e client": 4,
	}
	if fmt.Sprint(answers) != fmt.Sprint(want) {
		t.Errorf("HTTP: answers are %v, want %v", answers, want)
	}
	answers = map[string]int{}
	for range 8 {
		body, err := exchange(t, raw, "")
		if err != nil {
			t.Fatal("TCP:", err)
		}
		answers[body]++
	}
	want = map[string]int{"one SUCCESS CN=e2e client": 4, "two SUCCESS CN=e2e client": 4}
	if fmt.Sprint(answers) != fmt.Sprint(want) {
		t.Errorf("TCP: answers are %v, want %v", answers, want)
	}

	// After one member has died, clients do not notice. A request on an open
	// connection at the moment of the death may have been processed, so it is not
	// resent; wait until that moment has passed.
	two.kill()
	eventually(t, "the dead member is detected", func() bool {
		get(t, web)
		for _, e := range g.upstream("web").GetEndpoints() {
			if e.GetAddress() == two.address(0) {
				return e.GetLastFailure().GetReason() == adminv1.Reason_REASON_CONNECT_REFUSED
			}
		}
		return false
	})
	for range 8 {
		if code, body := get(t, web); code != 200 || !strings.HasPrefix(body, "one ") {
			t.Errorf("HTTP, one member dead: %d %q", code, body)
		}
		if body, err := exchange(t, raw, ""); err != nil || !strings.HasPrefix(body, "one ") {
			t.Errorf("TCP, one member dead: %q %v", body, err)
		}
	}
	for _, e := range g.upstream("raw").GetEndpoints() {
		wantHealth := adminv1.EndpointHealth_ENDPOINT_HEALTH_UP
		if e.GetAddress() == two.address(1) {
			wantHealth = adminv1.EndpointHealth_ENDPOINT_HEALTH_DOWN
			if e.GetLastFailure().GetReason() != adminv1.Reason_REASON_CONNECT_REFUSED {
				t.Errorf("last failure of the dead endpoint is %v", e.GetLastFailure())
			}
		}
		if e.GetHealth() != wantHealth {
			t.Errorf("endpoint %s is %v, want %v", e.GetAddress(), e.GetHealth(), wantHealth)
		}
	}
}
