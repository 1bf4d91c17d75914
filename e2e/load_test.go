// Under the load of wrk and h2load, every request gets an answer: from HTTP/1.1
// and HTTP/2 clients, to nginx over HTTP/1.1 and HTTP/2 with mutual TLS.

package e2e

import (
	"fmt"
	"regexp"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

func TestEveryRequestOfALoadIsAnswered(t *testing.T) {
	t.Parallel()
	wrk, h2load := need(t, "wrk"), need(t, "h2load")
	a := newAuthority(t)
	n := startNginx(t, nginxConfig{
		ports: 2,
		files: nginxFiles(a.ca, a.server),
		http: func(n *nginx) string {
			servers := ""
			for i, option := range []string{"ssl", "ssl http2"} {
				servers += fmt.Sprintf("server { listen %s %s; %s\n location / { return 200 \"%s\"; } }\n",
					n.address(i), option, n.mutualTLS(), strings.Repeat("x", 1000))
			}
			return servers
		},
	})

	g := startGateway(t)
	one, two := upstream("http1", a.settings(), n.address(0)), upstream("http2", a.settings(), n.address(1))
	one.Http = &adminv1.UpstreamHttp{Protocol: adminv1.HttpProtocol_HTTP_PROTOCOL_1_1}
	two.Http = &adminv1.UpstreamHttp{Protocol: adminv1.HttpProtocol_HTTP_PROTOCOL_2}
	resources := []proto.Message{trustBundle("ca", a.ca), certificate("client", a.client), certificate("front", a.server), one, two}
	for _, u := range []string{"http1", "http2"} {
		plain, secure := listener("plain-"+u, protocolHTTP, u), listener("secure-"+u, protocolHTTP, u)
		secure.Tls = &adminv1.ServerTls{Certificates: []string{"front"}}
		resources = append(resources, plain, secure)
	}
	g.apply(resources...)

	answered := regexp.MustCompile(`(\d+) requests in`)
	for _, u := range []string{"http1", "http2"} {
		for _, url := range []string{"http://" + g.address("plain-"+u) + "/", "https://" + g.address("secure-"+u) + "/"} {
			r := command(t, wrk, "-t", "1", "-c", "32", "-d", "1s", "--timeout", "90s", url)
			requests := answered.FindStringSubmatch(r.stdout)
			for range 5 {
				if requests == nil || requests[1] != "0" {
					break
				}
				r = command(t, wrk, "-t", "1", "-c", "32", "-d", "1s", "--timeout", "90s", url) // the machine stalled for the whole second
				requests = answered.FindStringSubmatch(r.stdout)
			}
			if r.code != 0 || requests == nil || requests[1] == "0" || strings.Contains(r.stdout, "Socket errors") || strings.Contains(r.stdout, "Non-2xx") {
				t.Errorf("wrk %s to %s: %v", url, u, r)
			}
			for _, version := range []string{"--h1", "-m10"} {
				r := command(t, h2load, "-t1", "-c8", "-n2000", version, url)
				if r.code != 0 || !strings.Contains(r.stdout, "2000 succeeded, 0 failed, 0 errored, 0 timeout") || !strings.Contains(r.stdout, "2000 2xx") {
					t.Errorf("h2load %s %s to %s: %v", version, url, u, r)
				}
			}
		}
	}
}
