package l7

import (
	"io"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"github.com/drawbridge-gateway/drawbridge/bridge/l7/backs"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// When a connection to an HTTP/2 upstream is dead, one request discovers it, and later
// requests use another connection.
func TestRequestsAvoidADeadHTTP2Connection(t *testing.T) {
	t.Parallel()
	withGrowingLimit(t, 2*time.Second, func(limit time.Duration) bool {
		got := throughADeadConnection(t, limit)
		late := 0
		for _, code := range got[1:] {
			if code == 504 {
				late++
			}
		}
		if got[0] == 504 || late > 1 {
			return false
		}
		if got[0] != 204 || late != 1 || got[1] != 504 {
			t.Errorf("answered %v", got)
		}
		return true
	})
}

// throughADeadConnection returns the status codes of five requests. The first connection that
// carries them dies after the first response, and each request has a limit.
func throughADeadConnection(t *testing.T, limit time.Duration) (codes []int) {
	w := newTestbed(t)
	var conns atomic.Int32
	back := w.back(backs.HTTP2, w.raw(w.serverTLS("h2"), func(c net.Conn) {
		if _, err := io.ReadFull(c, make([]byte, len(http2.ClientPreface))); err != nil {
			return
		}
		dead := conns.Add(1) == 1 // the first connection dies after one response
		fr := http2.NewFramer(c, c)
		fr.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
		_ = fr.WriteSettings()
		for answered := 0; ; {
			frame, err := fr.ReadFrame()
			if err != nil {
				return
			}
			if dead && answered > 0 {
				continue
			}
			switch f := frame.(type) {
			case *http2.MetaHeadersFrame:
				answered++
				_ = fr.WriteHeaders(http2.HeadersFrameParam{StreamID: f.StreamID, BlockFragment: []byte{0x89}, EndHeaders: true, EndStream: true}) // 204
			case *http2.PingFrame:
				if !f.IsAck() {
					_ = fr.WritePing(true, f.Data)
				}
			}
		}
	}))
	action := to(back)
	action.Forward.Timeout = limit
	_, address := w.gateway(fixed(&Table{Default: action}))
	browser := w.browser()
	for range 5 {
		code, _ := w.get(browser, "http://"+address)
		codes = append(codes, code)
	}
	return codes
}
