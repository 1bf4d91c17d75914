// Behind an nginx that the listener trusts, the client's address is the one in
// nginx's fields: for access rules and in the fields to the upstream. Redirects
// to https do not loop. Fields from an untrusted peer are ignored.

package e2e

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

func TestTrustedProxiesNameTheClient(t *testing.T) {
	t.Parallel()
	a := newAuthority(t)
	tells := serveHTTPS(t, a.serverConfig(t), func(w http.ResponseWriter, r *http.Request) {
		h := r.Header
		_, _ = fmt.Fprintf(w, "for %s by %s at %s port %s; %s", strings.Join(h.Values("X-Forwarded-For"), "|"), h.Get("X-Forwarded-Proto"), h.Get("X-Forwarded-Host"), h.Get("X-Forwarded-Port"), h.Get("Forwarded"))
	})
	front := listener("front", protocolHTTP, "back")
	front.Http = &adminv1.HttpOptions{TrustedProxies: []string{"127.0.0.2", "127.0.0.1"}, Forwarding: adminv1.Forwarding_FORWARDING_BOTH}
	front.Access = &adminv1.ClientAccess{Allow: []string{"127.0.0.0/24", "192.0.2.0/24"}, Deny: []string{"127.0.0.66"}}
	secure := &adminv1.Route{
		Name: "secure", Listeners: []string{"front"},
		Action: &adminv1.Route_Redirect{Redirect: &adminv1.Redirect{Code: new(int32(308)), Scheme: "https"}},
	}
	closed := listener("closed", protocolTCP, "back")
	closed.Access = &adminv1.ClientAccess{Deny: []string{"127.0.0.66"}}
	g := startGateway(t)
	g.apply(trustBundle("ca", a.ca), certificate("client", a.client), upstream("back", a.settings(), tells), front, secure, closed)

	// As usual, nginx appends to the client's fields. The test chooses the
	// scheme that it reports.
	proxy := startNginx(t, nginxConfig{ports: 1, http: func(n *nginx) string {
		return fmt.Sprintf(`server { listen %s;
    location / { proxy_pass http://%s; proxy_bind 127.0.0.2; proxy_set_header Host $http_host;
      proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for; proxy_set_header X-Forwarded-Proto $http_x_scheme; } }`, n.address(0), g.address("front"))
	}})
	through := func(ip string, lines ...string) (code int, location, body string) {
		t.Helper()
		code, location, body, err := askFrom(ip, proxy.address(0), lines...)
		if err != nil {
			t.Fatal(err)
		}
		return code, location, body
	}
	code, _, body := through("127.0.0.9", "X-Scheme: https")
	if want := "for 127.0.0.9, 127.0.0.2 by https at shop.example.com port 443; for=127.0.0.9;host=shop.example.com;proto=https, for=127.0.0.2"; code != 200 || body != want {
		t.Errorf("%d %q, want %q", code, body, want)
	}
	if code, to, _ := through("127.0.0.9", "X-Scheme: http"); code != 308 || to != "https://shop.example.com/x?y" {
		t.Errorf("over http: %d to %q", code, to)
	}
	// The gateway drops the client's own fields.
	forged := []string{"X-Scheme: https", "X-Forwarded-For: 192.0.2.1", "X_Forwarded_Host: evil.example", "Forwarded: for=192.0.2.1", "X-Real-IP: 192.0.2.1"}
	if code, _, again := through("127.0.0.9", forged...); code != 200 || again != body {
		t.Errorf("%d %q, want %q", code, again, body)
	}
	if code, _, body := through("127.0.0.66", forged...); code != 403 || body != "forbidden\n" {
		t.Errorf("a client without access: %d %q", code, body)
	}

	// A direct client is identified by its own address.
	respondsWith := []string{"X-Forwarded-For: 192.0.2.1", "X-Forwarded-Proto: https"}
	if code, _, _, err := askFrom("127.0.0.9", g.address("front"), respondsWith...); code != 308 {
		t.Errorf("a direct client that claims https: %d, %v", code, err)
	}
	for _, name := range []string{"front", "closed"} {
		if code, _, _, err := askFrom("127.0.0.66", g.address(name), respondsWith...); err == nil {
			t.Errorf("%s: a client without access gets %d", name, code)
		}
	}
	eventually(t, "the log has both", func() bool {
		return strings.Count(g.out.String(), "connection refused: the client has no access") == 2
	})
}

// askFrom makes one request with the given fields from the local address ip.
func askFrom(ip, address string, fields ...string) (code int, location, body string, err error) {
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(ip)}, Timeout: testTimeout}
	conn, err := d.Dial("tcp", address)
	if err != nil {
		return 0, "", "", err
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(testTimeout))
	lines := append([]string{"GET /x?y HTTP/1.1", "Host: shop.example.com", "Connection: close"}, fields...)
	if _, err := io.WriteString(conn, strings.Join(lines, "\r\n")+"\r\n\r\n"); err != nil {
		return 0, "", "", err
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		return 0, "", "", err
	}
	body, err = readBody(resp)
	return resp.StatusCode, resp.Header.Get("Location"), body, err
}
