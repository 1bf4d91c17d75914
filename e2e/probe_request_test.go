// `drawbridge probe --request` detects servers like nginx, which reject a
// client certificate, or a missing one, only when they receive a request.

package e2e

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

func TestProbeRequestAtNginx(t *testing.T) {
	t.Parallel()
	a, other := newAuthority(t), newCA(t, "another root")
	server := func(n *nginx, port int, more string) string {
		return fmt.Sprintf(`server {
    listen %s ssl;
    ssl_certificate %s;
    ssl_certificate_key %s;
    ssl_client_certificate %s;
    ssl_verify_client on;
    %s
    location / { return 200 "reached"; }
  }
`, n.address(port), n.file("server.pem"), n.file("server.key"), n.file("ca.pem"), more)
	}
	n := startNginx(t, nginxConfig{
		ports: 2, files: nginxFiles(a.ca, a.server),
		http: func(n *nginx) string {
			return server(n, 0, "") + server(n, 1, `error_page 495 = @bad; error_page 496 = @none;
    location @bad { return 495 "no"; } location @none { return 496 "no"; }`)
		},
	})
	g := startGateway(t)
	g.apply(trustBundle("ca", a.ca), certificate("client", a.client), certificate("stranger", clientCert(t, other, "stranger")))
	for _, c := range []struct {
		certificate, reason  string
		statuses             [2]int // the status codes of the two servers
		respondsWith, advice string
	}{
		{"client", "", [2]int{200, 200}, "200 (OK)", ""},
		{"", "CLIENT_CERTIFICATE_REQUIRED", [2]int{400, 496}, "it requires a client certificate, and we sent none", `set tls.certificate to "client"`},
		{"stranger", "CLIENT_CERTIFICATE_REJECTED", [2]int{400, 495}, "it does not accept our client certificate", `set tls.certificate to "client"`},
	} {
		for port := range 2 {
			for _, v := range bothVersions {
				settings := a.settings()
				settings.Certificate, settings.MinVersion, settings.MaxVersion = c.certificate, v.ours, v.ours
				g.apply(upstream("u", settings, n.address(port)))
				r := g.cli("probe", "u", "--request", "GET /x?y=z", "-o", "json")
				var answer struct {
					Results []struct {
						Outcome, Reason, Explanation string
						ResponseStatus               int
						Suggestion                   struct{ Text string }
					}
				}
				if err := json.Unmarshal([]byte(r.stdout), &answer); err != nil || len(answer.Results) != 1 {
					t.Fatalf("%v: %s", err, r)
				}
				got := answer.Results[0]
				if got.Reason != c.reason || got.ResponseStatus != c.statuses[port] || !strings.Contains(got.Explanation, c.respondsWith) ||
					!strings.Contains(got.Suggestion.Text, c.advice) || (r.code == 0) != (c.reason == "") {
					t.Errorf("certificate %q, server %d, %s: %s", c.certificate, port, v.name, r)
				}
			}
		}
	}
	text := g.cli("probe", "u", "--request", "GET /").stdout
	if !strings.Contains(text, "response") || !strings.Contains(text, "495") {
		t.Errorf("for people:\n%s", text)
	}
	for _, bad := range []string{"POST /", "GET x", "GET /a b", "GET /\r\nX: y", "/"} {
		_, err := g.diagnostics.ProbeUpstream(longContext(t), &adminv1.ProbeUpstreamRequest{Target: &adminv1.ProbeUpstreamRequest_Name{Name: "u"}, Request: bad})
		if err == nil || !strings.Contains(err.Error(), "request") {
			t.Errorf("%q: %v", bad, err)
		}
	}
}
