package l7

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"testing"

	"github.com/drawbridge-gateway/drawbridge/bridge/l7/backs"
	"github.com/drawbridge-gateway/drawbridge/bridge/live"
)

// tunnelUpstream is an upstream that accepts WebSockets and echoes their bytes.
func (w *testbed) tunnelUpstream(config *tls.Config) (address string) {
	return w.raw(config, func(c net.Conn) {
		if _, err := c.Read(make([]byte, 4096)); err != nil {
			return
		}
		fmt.Fprintf(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: %s\r\n\r\n", sampleAccept)
		_, _ = io.Copy(c, c)
	})
}

// tunnel opens a WebSocket and waits until it carries bytes.
func (w *testbed) tunnel(t *testing.T, address string, secure bool) *rawConn {
	t.Helper()
	c := w.dial(address)
	if secure {
		c = overTLS(w, c)
	}
	c.send("GET / HTTP/1.1", "Host: a.test", "Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: "+sampleKey)
	res, err := http.ReadResponse(c.r, nil)
	if err != nil || res.StatusCode != 101 {
		t.Fatalf("%v, %v", res, err)
	}
	echoed(t, c, "hello")
	return c
}

// echoed fails t unless the tunnel echoes text.
func echoed(t *testing.T, c *rawConn, text string) {
	t.Helper()
	got := make([]byte, len(text))
	_, err := io.WriteString(c, text)
	if err == nil {
		_, err = io.ReadFull(c.r, got)
	}
	if string(got) != text || err != nil {
		t.Errorf("%q, %v", got, err)
	}
}

// A WebSocket has no goroutine, with TLS or without, and everything that can happen to a
// connection still happens to it.
func TestTunnelsHaveNoGoroutine(t *testing.T) {
	t.Parallel()
	needsEpoll(t)
	for _, secure := range []bool{false, true} {
		for name, end := range map[string]func(t *testing.T, s *Server, c *rawConn){
			"ended by its client": func(t *testing.T, _ *Server, c *rawConn) {
				_ = c.Conn.(interface{ CloseWrite() error }).CloseWrite()
				if rest, err := io.ReadAll(c.r); len(rest) != 0 || err != nil {
					t.Errorf("%q, %v", rest, err)
				}
			},
			"cut": func(t *testing.T, s *Server, c *rawConn) {
				var entries []live.Entry
				s.EachConnection(func(e live.Entry) { entries = append(entries, e) })
				for _, e := range entries {
					e.Close(0)
				}
				if _, err := io.ReadAll(c.r); err == nil {
					t.Error("a cut tunnel looks complete")
				}
			},
			"at shutdown": func(t *testing.T, s *Server, c *rawConn) {
				ctx, cancel := context.WithCancel(context.Background())
				ended := make(chan error, 1)
				go func() { ended <- s.Shutdown(ctx) }()
				echoed(t, c, "while draining")
				cancel()
				if err := <-ended; err != context.Canceled {
					t.Error(err)
				}
				if _, err := io.ReadAll(c.r); err == nil {
					t.Error("a cut tunnel looks complete")
				}
			},
		} {
			t.Run(fmt.Sprintf("%s,tls=%v", name, secure), func(t *testing.T) {
				w := newTestbed(t)
				var pools *backs.Pools
				table := &Table{}
				if secure {
					pools = w.back(backs.HTTP1, w.tunnelUpstream(w.serverTLS("http/1.1")))
					table.TLS = w.listenerTLS("http/1.1")
				} else {
					pools = w.newBack(backs.Options{Upstream: plaintext(w.tunnelUpstream(nil)), Protocol: backs.HTTP1})
				}
				table.Default = to(pools)
				s, address := w.gateway(fixed(table))
				const n = 5
				tunnels := make([]*rawConn, n)
				for i := range tunnels {
					tunnels[i] = w.tunnel(t, address, secure)
				}
				eventually(t, "no goroutine serves a tunnel", func() bool { return w.serving() == 0 })
				if st := s.Stats(); st.Open != n || st.InFlight != n {
					t.Errorf("%d connections and %d requests, want %d", st.Open, st.InFlight, n)
				}
				for i, c := range tunnels {
					echoed(t, c, fmt.Sprint("message ", i))
				}
				end(t, s, tunnels[0])
				for _, c := range tunnels {
					c.Close()
				}
				eventually(t, "all tunnels have ended", func() bool {
					st := s.Stats()
					return st.Open == 0 && st.InFlight == 0 && st.Requests[101] == n
				})
			})
		}
	}
}
