package l4_test

import (
	"io"
	"net"
	"testing"

	"github.com/drawbridge-gateway/drawbridge/bridge/l4"
	"github.com/drawbridge-gateway/drawbridge/bridge/socket/sockettest"
	"github.com/drawbridge-gateway/drawbridge/bridge/upstream"
	"github.com/drawbridge-gateway/drawbridge/certs"
)

// A target bounds how many endpoints each connection tries.
func TestTargetBoundsAttempts(t *testing.T) {
	gone := upstream.EndpointOptions{Network: "tcp", Address: sockettest.Free(t)}
	for most, want := range map[int]uint64{0: 4, 1: 1, 3: 3} {
		u := group(gone, gone, gone, gone)
		target := to(u)
		target.Attempts = upstream.Attempts{MaxEndpoints: most}
		g := serve(t, &l4.Table{Default: target})
		if c, err := net.Dial("tcp", g.address); err == nil { // otherwise the connection was reset before
			_, _ = io.Copy(io.Discard, c)
			c.Close()
		}
		eventually(t, "the connection has failed", func() bool { return g.Stats().DialFailures == 1 })
		var tried uint64
		for _, e := range u.Status() {
			tried += e.Failures[certs.ReasonConnectRefused]
		}
		if tried != want {
			t.Errorf("at most %d: %d endpoints were tried", most, tried)
		}
	}
}
