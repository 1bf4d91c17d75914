// The gateway accepts arbitrary bytes on any port: it answers with an error or
// closes the connection, and serves the next client.

package e2e

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"strings"
	"syscall"
	"testing"
	"time"

	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

func TestGarbageOnEveryPort(t *testing.T) {
	t.Parallel()
	for _, format := range []string{"json", "text"} {
		t.Run(format, func(t *testing.T) {
			t.Parallel()
			sendGarbageToEveryPort(t, format)
		})
	}
}

func sendGarbageToEveryPort(t *testing.T, logFormat string) {
	a := newAuthority(t)
	web := serveHTTPS(t, a.serverConfig(t), respondsWith("web"))
	raw := serveConns(t, a.serverConfig(t), echo)
	rude := serveConns(t, nil, func(conn net.Conn) { _, _ = io.WriteString(conn, "220 this is not TLS\r\n") })
	g, ops := startGatewayWithOps(t, "--log-format", logFormat)
	g.serveBoth(a, web, raw)
	for _, protocol := range []adminv1.Protocol{protocolHTTP, protocolTCP} {
		l := listener(strings.ToLower(protocol.String()[9:])+"-tls", protocol, "raw")
		l.Tls = &adminv1.ServerTls{Certificates: []string{"front"}, ClientAuth: adminv1.ClientAuth_CLIENT_AUTH_REQUIRED, ClientTrustBundles: []string{"ca"}}
		g.apply(certificate("front", a.server), l)
	}
	g.apply(upstream("rude", a.settings(), rude), listener("rude", protocolHTTP, "rude"), listener("rude-tcp", protocolTCP, "rude"))

	random := rand.NewChaCha8([32]byte{1})
	noise := make([]byte, 64<<10)
	_, _ = random.Read(noise)
	garbage := map[string][]byte{
		"nothing":                  nil,
		"noise":                    noise,
		"zeros":                    make([]byte, 64<<10),
		"a bare line":              []byte("\n"),
		"half a request":           []byte("GET / HTTP/1.1\r\nHost: x\r\nX: "),
		"no host":                  []byte("GET / HTTP/1.1\r\n\r\n"),
		"two lengths":              []byte("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd"),
		"length and chunks":        []byte("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
		"a bad chunk":              []byte("POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nabc\r\n"),
		"a path out of the tree":   []byte("GET /../../etc/passwd HTTP/1.1\r\nHost: x\r\n\r\n"),
		"a path of bad escapes":    []byte("GET /%zz%00 HTTP/1.1\r\nHost: x\r\n\r\n"),
		"an absurd header":         []byte("GET / HTTP/1.1\r\nHost: x\r\nX: " + strings.Repeat("x", 1<<20) + "\r\n\r\n"),
		"many headers":             []byte("GET / HTTP/1.1\r\nHost: x\r\n" + strings.Repeat("X: y\r\n", 50_000) + "\r\n"),
		"CONNECT":                  []byte("CONNECT 127.0.0.1:22 HTTP/1.1\r\nHost: 127.0.0.1:22\r\n\r\n"),
		"an odd upgrade":           []byte("GET / HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n"),
		"an HTTP/2 preface":        []byte("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00\xff\xff\xff\x01"),
		"a record too long":        {0x16, 3, 1, 0xff, 0xff, 1, 0, 0xff, 0xff},
		"half a ClientHello":       {0x16, 3, 1, 0, 200, 1, 0, 0, 196, 3, 3},
		"an alert":                 {0x15, 3, 3, 0, 2, 2, 80},
		"an SSLv2 ClientHello":     {0x80, 0x2e, 1, 0, 2, 0, 0x15, 0, 0, 0, 0x10, 1, 0, 0x80},
		"control characters, ANSI": []byte("\x1b[2J\x1b]0;owned\a GET \x00\xff\r\n\r\n"),
	}

	ports := map[string]string{"ops": "tcp " + ops, "admin": "unix " + g.socket}
	for _, l := range g.getStatus().GetListeners() {
		ports[l.GetName()] = "tcp " + l.GetBoundAddress()
	}
	inside := &tls.Config{RootCAs: pool(a.ca), ServerName: serverName, Certificates: []tls.Certificate{keyPair(t, a.client)}, NextProtos: []string{"http/1.1"}}
	t.Run("ports", func(t *testing.T) {
		for name, port := range ports {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				network, address, _ := strings.Cut(port, " ")
				for what, data := range garbage {
					if err := throw(network, address, data, nil); err != nil {
						t.Errorf("%s: %v", what, err)
					}
					if !strings.HasSuffix(name, "-tls") {
						continue
					}
					if err := throw(network, address, data, inside); err != nil {
						t.Errorf("%s, within TLS: %v", what, err)
					}
				}
			})
		}
	})
	if g.done() {
		t.Fatalf("the gateway ended: %v", g.err)
	}
	t.Run("traffic after the garbage", func(t *testing.T) {
		if code, body := get(t, "http://"+g.address("web")+"/"); code != 200 || body != "web" {
			t.Errorf("HTTP: %d %q", code, body)
		}
		if answer, err := exchange(t, g.address("raw"), "raw"); err != nil || answer != "raw" {
			t.Errorf("TCP: %q, %v", answer, err)
		}
		if code, _ := get(t, "http://"+ops+"/healthz"); code != 200 {
			t.Errorf("/healthz: %d", code)
		}
		if strings.ContainsAny(g.out.String(), "\x1b\a\x00") {
			t.Error("the log holds control characters that a client sent")
		}
	})
}

// throw sends bytes, over TLS if there is a config, ends its stream, and reads
// until the gateway closes. It returns an error only if the gateway is down or
// never closes.
func throw(network, address string, data []byte, config *tls.Config) error {
	conn, err := net.DialTimeout(network, address, testTimeout)
	if errors.Is(err, syscall.ECONNRESET) {
		return nil // the gateway closed before the dial returned
	}
	if err != nil {
		return err
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(testTimeout))
	if config != nil {
		secure := tls.Client(conn, config)
		if err := secure.Handshake(); err != nil {
			return err
		}
		conn = secure
	}
	go func() { // read the echo while sending
		_, _ = conn.Write(data)
		_ = closeWrite(conn)
	}()
	if _, err := io.Copy(io.Discard, conn); err != nil && isTimeout(err) {
		return fmt.Errorf("still open after %v", testTimeout)
	}
	return nil
}

func isTimeout(err error) bool {
	t, ok := err.(net.Error)
	return ok && t.Timeout()
}
