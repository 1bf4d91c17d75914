package probe_test

import (
	"crypto/tls"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/drawbridge-gateway/drawbridge/bridge/probe"
	"github.com/drawbridge-gateway/drawbridge/bridge/starttls"
	"github.com/drawbridge-gateway/drawbridge/certs"
	"github.com/drawbridge-gateway/drawbridge/certs/certstest"
)

func TestAProbeStartsTLS(t *testing.T) {
	config, options := mutual(t, certstest.NewCA(t))
	for name, c := range map[string]struct {
		answer              string
		next                func(net.Conn)
		reason              certs.Reason
		explains, suggested string
	}{
		"agrees": {"S", func(c net.Conn) {
			if tc := tls.Server(c, config); tc.Handshake() == nil {
				tc.Read(make([]byte, 1))
			}
		}, "", "agreed in PostgreSQL to start TLS, and completed the handshake: TLS 1.3", ""},
		"refuses":                {"N", nil, certs.ReasonSTARTTLSRefused, `answered SSLRequest with "N"`, "enable TLS at the server, or correct endpoints[0].address"},
		"is not PostgreSQL":      {"220 mail.example.com ESMTP\r\n", nil, certs.ReasonSTARTTLSRefused, `"220 mail.example.com ESMTP\r\n", which is not PostgreSQL`, "correct tls.starttls"},
		"injects":                {"Sx", nil, certs.ReasonSTARTTLSInjection, `SSLRequest: "x"`, "insert plaintext"},
		"stalls":                 {"", nil, certs.ReasonHandshakeTimeout, "did not start TLS in PostgreSQL: waiting for the server: its answer to SSLRequest", "enable TLS"},
		"closes":                 {"", func(c net.Conn) { c.Close() }, certs.ReasonPeerClosed, "waiting for the server: its answer to SSLRequest: EOF", "enable TLS"},
		"agrees and then closes": {"S", func(c net.Conn) { c.Read(make([]byte, 9000)); c.(*net.TCPConn).CloseWrite(); io.Copy(io.Discard, c) }, certs.ReasonPeerClosed, "closed the connection during the TLS handshake", "check"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			addr := serve(t, listen(t), func(conn net.Conn) {
				if _, err := io.ReadFull(conn, make([]byte, 8)); err != nil {
					return
				}
				io.WriteString(conn, c.answer)
				if c.next != nil {
					c.next(conn)
				}
				io.Copy(io.Discard, conn)
			})
			r := run(t, addr, options, func(target *probe.Target) {
				target.Starttls = starttls.Postgres
				if c.reason == certs.ReasonHandshakeTimeout {
					target.HandshakeTimeout = 50 * time.Millisecond
				}
			})
			if r.Reason != c.reason || !strings.Contains(r.Explanation, c.explains) || !strings.Contains(r.Suggestion.Text, c.suggested) {
				t.Errorf("%s: %s; %s", r.Reason, r.Explanation, r.Suggestion.Text)
			}
		})
	}
}
