package l7

import (
	"context"
	"errors"
	"io"
	"syscall"
	"testing"
	"time"

	"golang.org/x/net/http2"
)

// Whatever makes the gateway end an HTTP/2 connection over TLS, the client reads
// GOAWAY and then close_notify. So it can distinguish the end from a truncation.
func TestHTTP2ConnectionsEndWithCloseNotify(t *testing.T) {
	for name, c := range map[string]struct {
		table Table
		limit func(table *Table, limit time.Duration) // sets the time limit that ends the connection
		end   func(s *Server, peer *framed)
		code  http2.ErrCode
	}{
		"idle":             {limit: func(table *Table, limit time.Duration) { table.IdleTimeout = limit }},
		"old":              {limit: func(table *Table, limit time.Duration) { table.MaxAge = limit }},
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
			withGrowingLimit(t, time.Second, func(limit time.Duration) bool {
				table := c.table
				if c.limit != nil {
					c.limit(&table, limit)
				}
				ended, goneAway, err := endOfHTTP2(t, &table, c.end, c.code)
				if name == "a flood" && goneAway && errors.Is(err, syscall.ECONNRESET) && limit < 10*time.Second {
					return false // a busy machine stalled the flood for longer than the gateway waits for its end
				}
				if err != io.EOF {
					t.Errorf("the connection ended with %v", err)
				}
				if c.limit != nil && goneAway && !ended {
					return false // the connection was closed before the request came
				}
				if !ended || !goneAway {
					t.Errorf("a response: %v, GOAWAY: %v", ended, goneAway)
				}
				return true
			})
		})
	}
}

// endOfHTTP2 sends a request to a gateway with a table. It reports whether the response ended, whether
// GOAWAY came with the code before the connection ended, and the error that ended the connection.
func endOfHTTP2(t *testing.T, table *Table, end func(*Server, *framed), code http2.ErrCode) (ended, goneAway bool, err error) {
	w := newTestbed(t)
	table.TLS, table.Default = w.listenerTLS("h2"), &Action{Respond: &Respond{}}
	s, address := w.gateway(fixed(table))
	peer := w.framed(t, address, true)
	defer peer.Close()
	peer.headers(1, []string{":method: GET", ":scheme: https", ":authority: localhost", ":path: /"}, true)
	for {
		f, err := peer.framer.ReadFrame()
		if err != nil {
			return ended, goneAway, err
		}
		switch f := f.(type) {
		case *http2.GoAwayFrame:
			goneAway = true
			if f.ErrCode != code {
				t.Errorf("GOAWAY with %v", f.ErrCode)
			}
		case *http2.PingFrame:
			if !f.IsAck() {
				_ = peer.framer.WritePing(true, f.Data)
			}
		case *http2.HeadersFrame:
			if ended = true; end != nil {
				go end(s, peer)
			}
		}
	}
}
