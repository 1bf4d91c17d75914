package l7

import (
	"context"
	"io"
	"testing"
	"time"

	"golang.org/x/net/http2"
)

// In each way that the gateway ends an HTTP/2 connection over TLS, the client reads
// GOAWAY and then close_notify. So it can distinguish the end from a truncation.
func TestHTTP2ConnectionsEndWithCloseNotify(t *testing.T) {
	for name, c := range map[string]struct {
		table Table
		end   func(s *Server, peer *framed)
		code  http2.ErrCode
	}{
		"idle":             {table: Table{IdleTimeout: time.Second}},
		"old":              {table: Table{MaxAge: time.Second}},
		"enough requests":  {table: Table{MaxRequests: 1}},
		"a protocol error": {end: func(_ *Server, peer *framed) { _ = peer.framer.WriteData(0, false, nil) }, code: http2.ErrCodeProtocol},
		"a flood": {code: http2.ErrCodeEnhanceYourCalm, end: func(_ *Server, peer *framed) {
			for range 20_000 {
				_ = peer.framer.WritePriority(1, http2.PriorityParam{StreamDep: 3})
			}
		}},
		"drained": {end: func(s *Server, _ *framed) {
			ctx, cancel := context.WithTimeout(context.Background(), testTimeout)
			defer cancel()
			_ = s.Shutdown(ctx)
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newTestbed(t)
			table := c.table
			table.TLS, table.Default = w.listenerTLS("h2"), &Action{Respond: &Respond{}}
			s, address := w.gateway(fixed(&table))
			peer := w.framed(t, address, true)
			defer peer.Close()
			peer.headers(1, []string{":method: GET", ":scheme: https", ":authority: localhost", ":path: /"}, true)
			ended, goneAway := false, false
			for {
				f, err := peer.framer.ReadFrame()
				if err != nil {
					if err != io.EOF {
						t.Errorf("the connection ended with %v", err)
					}
					break
				}
				switch f := f.(type) {
				case *http2.GoAwayFrame:
					goneAway = true
					if f.ErrCode != c.code {
						t.Errorf("GOAWAY with %v", f.ErrCode)
					}
				case *http2.PingFrame:
					if !f.IsAck() {
						_ = peer.framer.WritePing(true, f.Data)
					}
				case *http2.HeadersFrame:
					if ended = true; c.end != nil {
						go c.end(s, peer)
					}
				}
			}
			if !ended || !goneAway {
				t.Errorf("a response: %v, GOAWAY: %v", ended, goneAway)
			}
		})
	}
}
