package l7

import (
	"io"
	"net"
	"sync/atomic"
	"testing"

	"github.com/drawbridge-gateway/drawbridge/bridge/intake"
	"github.com/drawbridge-gateway/drawbridge/bridge/l7/backs"
)

// A connection may be cut after its request was read and before its exchange has called
// Notify. The exchange still ends at once, and so does Shutdown.
func TestACutBeforeTheExchangeBeginsEndsIt(t *testing.T) {
	w := newTestbed(t)
	table := &Table{Default: to(w.newBack(backs.Options{Upstream: plaintext(w.raw(nil, func(c net.Conn) {
		_, _ = io.Copy(io.Discard, c) // the upstream never answers
	}))}))}
	var server atomic.Pointer[Server]
	var calls atomic.Int32
	s, address := w.gateway(func() *Table {
		if calls.Add(1) == 2 { // the first call was for the connection, this one is for its request
			server.Load().intake.Each(func(o intake.Owner) { o.Cut(errClientGone) })
		}
		return table
	})
	server.Store(s)
	c := w.dial(address)
	c.send("GET / HTTP/1.1", "Host: a")
	eventually(t, "the request has ended", func() bool {
		st := s.Stats()
		return st.Accepted == 1 && st.Open == 0 && st.InFlight == 0 && st.Requests[499] == 1
	})
}
