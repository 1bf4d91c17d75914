// The complete example of NGINX's "Securing HTTP Traffic to Upstream Servers",
// converted in deploy/examples, runs against two real nginx servers that
// require a client certificate.

package e2e

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/drawbridge-gateway/drawbridge/certs/pki"
)

func TestNginxGuideExample(t *testing.T) {
	t.Parallel()
	a := newAuthority(t)
	// proxy_ssl_verify_depth 2 allows two intermediates.
	deep := intermediate(t, intermediate(t, a.ca))
	backend := func(name string, issuer *pki.CA) *nginx {
		return startNginx(t, nginxConfig{
			ports: 1,
			files: nginxFiles(a.ca, serverCert(t, issuer, "backend.example.com")),
			http: func(n *nginx) string {
				return fmt.Sprintf(`server {
    listen %s ssl;
    server_name %s;
    %s
    location /upstream {
      return 200 "%s $ssl_client_verify $ssl_protocol $host $uri";
    }
  }`, n.address(0), name, n.mutualTLS(), name)
			},
		})
	}
	one, two := backend("backend1.example.com", a.ca), backend("backend2.example.com", deep)

	dir := t.TempDir()
	writeFile(t, filepath.Join(dir, "trusted_ca_cert.crt"), a.ca.RootPEM())
	writeFile(t, filepath.Join(dir, "client.pem"), a.client.ChainPEM)
	writeFile(t, filepath.Join(dir, "client.key"), a.client.KeyPEM)
	example, err := os.ReadFile(filepath.Join(examples, "nginx-upstream.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	text := string(example)
	for old, with := range map[string]string{
		"address: backend1.example.com:443": fmt.Sprintf("address: %q", one.address(0)),
		"address: backend2.example.com:443": fmt.Sprintf("address: %q", two.address(0)),
		`address: ":80"`:                    `address: "127.0.0.1:0"`,
		": /etc/nginx/":                     ": " + dir + "/",
	} {
		if !strings.Contains(text, old) {
			t.Fatalf("the example has no %q", old)
		}
		text = strings.ReplaceAll(text, old, with)
	}
	file := writeFile(t, filepath.Join(dir, "bridge.yaml"), []byte(text))

	g := startGateway(t, "--file-root", dir)
	if r := g.cli("apply", "-f", file); r.code != 0 || !strings.Contains(r.stdout+r.stderr, "HIGH:!aNULL:!MD5") {
		t.Fatalf("drawbridge apply should warn about the cipher string: %s", r)
	}
	ask := func(host, path string) (int, string) {
		t.Helper()
		req, err := http.NewRequestWithContext(longContext(t), http.MethodGet, "http://"+g.address("www")+path, nil)
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
		return resp.StatusCode, body
	}
	answers := map[string]int{}
	for range 6 {
		code, body := ask("www.example.com", "/upstream/x")
		if code != 200 {
			t.Fatalf("%d %q", code, body)
		}
		answers[body]++
	}
	const seen = " SUCCESS TLSv1.3 backend.example.com /upstream/x"
	want := map[string]int{"backend1.example.com" + seen: 3, "backend2.example.com" + seen: 3}
	if fmt.Sprint(answers) != fmt.Sprint(want) {
		t.Errorf("answers are %v, want %v", answers, want)
	}
	if code, _ := ask("www.example.com", "/elsewhere"); code != 404 {
		t.Errorf("a path without a location: %d", code)
	}
	for _, e := range g.upstream("backend").GetEndpoints() {
		if len(e.GetFailures()) != 0 {
			t.Errorf("failures at %s: %v", e.GetAddress(), e.GetFailures())
		}
	}
}
