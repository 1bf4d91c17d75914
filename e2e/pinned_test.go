// nginx sees the protocol versions and cipher suites of an upstream's settings,
// in either spelling. If the two sides have none in common, the reason says so.

package e2e

import (
	"fmt"
	"strings"
	"testing"

	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

const (
	tls11 = adminv1.TlsVersion_TLS_VERSION_1_1
	tls12 = adminv1.TlsVersion_TLS_VERSION_1_2
	tls13 = adminv1.TlsVersion_TLS_VERSION_1_3
)

func TestProtocolAndCipherArePinned(t *testing.T) {
	t.Parallel()
	a := newAuthority(t)
	// There are three servers of each kind: one accepts all versions and suites,
	// one only TLS 1.3, one only a single suite of TLS 1.2.
	accepts := []string{
		"ssl_protocols TLSv1.2 TLSv1.3;",
		"ssl_protocols TLSv1.3;",
		"ssl_protocols TLSv1.2; ssl_ciphers ECDHE-ECDSA-AES128-GCM-SHA256;",
	}
	servers := func(n *nginx, first int, answer string) string {
		var b strings.Builder
		for i, what := range accepts {
			fmt.Fprintf(&b, "server {\n listen %s ssl;\n %s\n %s\n return %s;\n}\n", n.address(first+i), n.mutualTLS(), what, answer)
		}
		return b.String()
	}
	n := startNginx(t, nginxConfig{
		ports:  2 * len(accepts),
		files:  nginxFiles(a.ca, a.server),
		http:   func(n *nginx) string { return servers(n, 0, `200 "$ssl_protocol $ssl_cipher"`) },
		stream: func(n *nginx) string { return servers(n, len(accepts), `"$ssl_protocol $ssl_cipher"`) },
	})

	g := startGateway(t)
	g.apply(trustBundle("ca", a.ca), certificate("client", a.client))
	for _, c := range []struct {
		name     string
		server   int
		min, max adminv1.TlsVersion
		ciphers  []string
		want     string         // a prefix of the facts that nginx sees
		reason   adminv1.Reason // or the reason why the handshake fails
		warning  string         // part of the write's warning
	}{
		{name: "default", want: "TLSv1.3 TLS_"},
		{name: "at-most-1-2", max: tls12, want: "TLSv1.2 ECDHE-ECDSA-"},
		{name: "at-least-1-3", min: tls13, want: "TLSv1.3 TLS_"},
		{name: "openssl-name", max: tls12, ciphers: []string{"ECDHE-ECDSA-AES256-GCM-SHA384"}, want: "TLSv1.2 ECDHE-ECDSA-AES256-GCM-SHA384"},
		{name: "iana-name", max: tls12, ciphers: []string{"TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256"}, want: "TLSv1.2 ECDHE-ECDSA-CHACHA20-POLY1305"},
		{name: "openssl-string", max: tls12, ciphers: []string{"HIGH:!aNULL:!MD5"}, want: "TLSv1.2 ECDHE-ECDSA-", warning: "HIGH:!aNULL:!MD5"},
		{name: "no-version", server: 1, max: tls12, reason: adminv1.Reason_REASON_PROTOCOL_VERSION},
		{name: "no-cipher", server: 2, max: tls12, ciphers: []string{"ECDHE-ECDSA-AES256-GCM-SHA384"}, reason: adminv1.Reason_REASON_NO_COMMON_CIPHER},
		{name: "old", min: tls11, want: "TLSv1.3 TLS_", warning: "1.1"},
	} {
		settings := &adminv1.UpstreamTls{
			Certificate: "client", TrustBundles: []string{"ca"}, ServerName: serverName,
			MinVersion: c.min, MaxVersion: c.max, CipherSuites: c.ciphers,
		}
		web, raw := "http-"+c.name, "tcp-"+c.name
		change := g.apply(
			upstream(web, settings, n.address(c.server)), listener(web, protocolHTTP, web),
			upstream(raw, settings, n.address(len(accepts)+c.server)), listener(raw, protocolTCP, raw),
		)
		if warned := fmt.Sprint(change.GetWarnings()); !strings.Contains(warned, c.warning) || (c.warning == "") != (len(change.GetWarnings()) == 0) {
			t.Errorf("%s: warnings are %v, want one with %q", c.name, change.GetWarnings(), c.warning)
		}
		if c.reason != adminv1.Reason_REASON_UNSPECIFIED {
			expectRefusal(t, g, web, raw, c.reason)
			continue
		}
		if _, body := get(t, "http://"+g.address(web)+"/"); !strings.HasPrefix(body, c.want) {
			t.Errorf("%s: nginx saw %q, want %q", web, body, c.want)
		}
		if answer, err := exchange(t, g.address(raw), ""); err != nil || !strings.HasPrefix(answer, c.want) {
			t.Errorf("%s: nginx saw %q (%v), want %q", raw, answer, err, c.want)
		}
	}
}
