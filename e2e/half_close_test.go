// A half-close is forwarded to the other side, with TLS on either or both
// sides, while the other direction stays open. A stream that was cut off never
// looks like a complete stream.

package e2e

import (
	"crypto/tls"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

func TestHalfCloseBothWaysThroughTLS(t *testing.T) {
	t.Parallel()
	a := newAuthority(t)
	long := strings.Repeat("0123456789abcdef", 1<<16) // 1 MiB

	// This server answers only after the client's half-close.
	answersAtEnd := serveConns(t, a.serverConfig(t), func(conn net.Conn) {
		got, err := io.ReadAll(conn)
		if err != nil {
			return
		}
		_, _ = conn.Write(got)
		_ = closeWrite(conn)
	})
	// This server half-closes at once and continues to read.
	received := make(chan string, 10)
	endsFirst := serveConns(t, a.serverConfig(t), func(conn net.Conn) {
		_, _ = io.WriteString(conn, "greeting")
		_ = closeWrite(conn)
		got, err := io.ReadAll(conn)
		if err != nil {
			got = []byte("error: " + err.Error())
		}
		received <- string(got)
	})
	// This server closes in the middle, without close_notify.
	cutsOff := serveConns(t, nil, func(raw net.Conn) {
		conn := tls.Server(raw, a.serverConfig(t))
		_, _ = io.ReadFull(conn, make([]byte, 4))
		_, _ = io.WriteString(conn, "half of the ans")
	})

	g := startGateway(t)
	settings := a.settings()
	g.apply(trustBundle("ca", a.ca), certificate("client", a.client), certificate("front", a.server))
	for name, address := range map[string]string{"answers-at-end": answersAtEnd, "ends-first": endsFirst, "cuts-off": cutsOff} {
		secure := listener(name+"-tls", protocolTCP, name)
		secure.Tls = &adminv1.ServerTls{Certificates: []string{"front"}}
		g.apply(upstream(name, settings, address), listener(name, protocolTCP, name), secure)
	}

	type halfCloser interface {
		net.Conn
		CloseWrite() error
	}
	for _, front := range []struct {
		name, suffix string
		dial         func(address string) halfCloser
	}{
		{"plaintext client", "", func(address string) halfCloser { return dial(t, address) }},
		{"TLS client", "-tls", func(address string) halfCloser {
			return dialTLS(t, address, &tls.Config{RootCAs: pool(a.ca), ServerName: serverName})
		}},
	} {
		t.Run(front.name, func(t *testing.T) {
			conn := front.dial(g.address("answers-at-end" + front.suffix))
			if _, err := io.WriteString(conn, long); err != nil {
				t.Fatal(err)
			}
			if err := conn.CloseWrite(); err != nil {
				t.Fatal(err)
			}
			if got, err := io.ReadAll(conn); err != nil || string(got) != long {
				t.Errorf("after our end: %d bytes, %v; want %d", len(got), err, len(long))
			}

			conn = front.dial(g.address("ends-first" + front.suffix))
			if got, err := io.ReadAll(conn); err != nil || string(got) != "greeting" {
				t.Errorf("until the upstream's end: %q, %v", got, err)
			}
			if _, err := io.WriteString(conn, long); err != nil {
				t.Fatal(err)
			}
			if err := conn.CloseWrite(); err != nil {
				t.Fatal(err)
			}
			select {
			case got := <-received:
				if got != long {
					t.Errorf("after its end the upstream got %d bytes (%.60s), want %d", len(got), got, len(long))
				}
			case <-time.After(testTimeout):
				t.Fatal("the upstream never saw our end")
			}

			conn = front.dial(g.address("cuts-off" + front.suffix))
			if _, err := io.WriteString(conn, "give"); err != nil {
				t.Fatal(err)
			}
			if got, err := io.ReadAll(conn); err == nil {
				t.Errorf("a truncated stream looked complete to the client, after %q", got)
			}
		})
	}
}
