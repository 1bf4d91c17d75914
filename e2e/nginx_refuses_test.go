// nginx limits the requests of a connection and refuses requests over the
// limit. The gateway resends each of them with its body, so clients do not
// notice.

package e2e

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"sync"
	"testing"

	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

func TestRequestsThatNginxRefusesAreResent(t *testing.T) {
	t.Parallel()
	a := newAuthority(t)
	back := startNginx(t, nginxConfig{
		ports: 2,
		files: nginxFiles(a.ca, a.server),
		http: func(n *nginx) string {
			// nginx forwards the body to another server, so it reads it.
			return fmt.Sprintf(`
  server { listen %s; location / { return 200 "served"; } }
  server { listen %s ssl http2; %s
    keepalive_requests 100;
    location / { proxy_pass http://%s; } }`, n.address(1), n.address(0), n.mutualTLS(), n.address(1))
		},
	})
	g := startGateway(t)
	up := upstream("back", a.settings(), back.address(0))
	up.Http = &adminv1.UpstreamHttp{Protocol: adminv1.HttpProtocol_HTTP_PROTOCOL_2}
	front := listener("front", protocolHTTP, "back")
	g.apply(trustBundle("ca", a.ca), certificate("client", a.client), up, front)
	url := "http://" + g.address(front.Name)
	var all sync.WaitGroup
	var mu sync.Mutex
	answers := make(map[string]int)
	for range 20 {
		all.Go(func() {
			client := &http.Client{Transport: &http.Transport{}}
			defer client.CloseIdleConnections()
			for range 200 {
				res, err := client.Post(url, "text/plain", struct{ io.Reader }{bytes.NewReader(make([]byte, 2000))})
				answer := ""
				if err != nil {
					answer = err.Error()
				} else {
					body, _ := io.ReadAll(res.Body)
					res.Body.Close()
					answer = fmt.Sprint(res.StatusCode, " ", string(body))
				}
				mu.Lock()
				answers[answer]++
				mu.Unlock()
			}
		})
	}
	all.Wait()
	if answers["200 served"] != 20*200 || len(answers) != 1 {
		t.Errorf("answers: %v", answers)
	}
}
