package l7

import (
	"crypto/tls"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"testing"

	"github.com/drawbridge-gateway/drawbridge/bridge/l7/backs"
	"github.com/drawbridge-gateway/drawbridge/bridge/l7/http2"
	"github.com/drawbridge-gateway/drawbridge/bridge/l7/message"
	"github.com/drawbridge-gateway/drawbridge/certs"
)

// If the upstream breaks an upgraded connection, that counts as a failure of the
// endpoint. If the client breaks it, that does not count. This holds for all HTTP
// versions.
func TestTheEndOfAnUpgradedConnectionIsCountedForTheSideThatFailed(t *testing.T) {
	const upgrade = "GET / HTTP/1.1\r\nHost: a.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: " + sampleKey + "\r\n\r\n"
	reset := func(c net.Conn) {
		if tc, ok := c.(*tls.Conn); ok {
			c = tc.NetConn()
		}
		_ = c.(*net.TCPConn).SetLinger(0)
		c.Close()
	}
	// Each upstream accepts the upgrade, greets, and ends the connection once the
	// client has confirmed the greeting, because a reset could overtake it.
	http1Upstream := func(w *testbed, end func(c net.Conn)) *backs.Pools {
		return w.ejectingAt(backs.HTTP1, w.raw(w.serverTLS(), func(c net.Conn) {
			if _, err := c.Read(make([]byte, 4096)); err != nil {
				return
			}
			fmt.Fprintf(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: %s\r\n\r\nhello", sampleAccept)
			_, _ = c.Read(make([]byte, 5))
			end(c)
		}))
	}
	http2Upstream := func(w *testbed, end func(s *http2.ServerStream)) *backs.Pools {
		return w.ejectingAt(backs.HTTP2, w.raw(w.serverTLS("h2"), connects(true, func(s *http2.ServerStream) {
			_ = s.Respond(&message.Response{Status: 200, Length: -1}, false)
			_ = s.Write([]byte("hello"))
			_ = s.Flush()
			_, _ = s.Read()
			end(s)
		})))
	}
	wait := func(c net.Conn) { _, _ = io.Copy(io.Discard, c) }
	for _, c := range []struct {
		name    string
		back    func(w *testbed) *backs.Pools
		end     func(c net.Conn) // what the client does after the greeting
		counted certs.Reason     // the failure counted for the endpoint, or ""
		ejects  bool
	}{
		{"HTTP/1.1 upstream resets", func(w *testbed) *backs.Pools { return http1Upstream(w, reset) }, wait, certs.ReasonUpstreamReset, true},
		{"HTTP/1.1 upstream truncates", func(w *testbed) *backs.Pools {
			return http1Upstream(w, func(c net.Conn) { c.(*tls.Conn).NetConn().Close() })
		}, wait, certs.ReasonUpstreamTruncated, false},
		{"HTTP/1.1 upstream ends", func(w *testbed) *backs.Pools { return http1Upstream(w, func(net.Conn) {}) }, wait, "", false},
		{"HTTP/1.1 upstream, client resets", func(w *testbed) *backs.Pools { return http1Upstream(w, wait) }, reset, "", false},
		{"HTTP/2 upstream resets", func(w *testbed) *backs.Pools {
			return http2Upstream(w, func(s *http2.ServerStream) { s.Abort(io.ErrClosedPipe) })
		}, wait, certs.ReasonUpstreamFailed, true},
		{"HTTP/2 upstream ends", func(w *testbed) *backs.Pools {
			return http2Upstream(w, func(s *http2.ServerStream) { _ = s.End(nil) })
		}, wait, "", false},
		{"HTTP/2 upstream, client resets", func(w *testbed) *backs.Pools {
			return http2Upstream(w, func(s *http2.ServerStream) { rest(s) })
		}, reset, "", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w := newTestbed(t)
			back := c.back(w)
			s, address := w.plain(back)
			for i := range 3 {
				if st := back.Upstream().Status()[0]; !st.Available {
					t.Fatalf("after %d: %s", i, st.Unavailable)
				}
				client := w.dial(address)
				fmt.Fprint(client, upgrade)
				res, err := http.ReadResponse(client.r, nil)
				if err != nil || res.StatusCode != 101 {
					t.Fatalf("%v, %v", res, err)
				}
				hello := make([]byte, 5)
				if _, err := io.ReadFull(client.r, hello); string(hello) != "hello" {
					t.Errorf("%q, %v", hello, err)
				}
				fmt.Fprint(client, "ready")
				c.end(client.Conn)
				client.Close()
				eventually(t, "the request has ended", func() bool { return s.Stats().InFlight == 0 })
			}
			want := map[certs.Reason]uint64{}
			if c.counted != "" {
				want[c.counted] = 3
			}
			st := back.Upstream().Status()[0]
			if !maps.Equal(st.Failures, want) {
				t.Errorf("failures of the endpoint: %v, want %v", st.Failures, want)
			}
			if st.Available == c.ejects {
				t.Errorf("available: %v (%s)", st.Available, st.Unavailable)
			}
		})
	}
}
