package l7

import (
	"net"
	"testing"

	"github.com/drawbridge-gateway/drawbridge/bridge/socket"
)

// An upgrade may end the wait for the upstream while the clock checks whether the client
// has left. The splice then owns the connection, so the clock must not cut it, even if
// it finds a closed descriptor or the half-close of the other protocol.
func TestUpgradeDuringTheClocksCheckCutsNothing(t *testing.T) {
	for _, waiting := range []bool{true, false} {
		near, far := net.Pipe()
		defer far.Close()
		c, causes := &conn{server: new(Server), sock: socket.New(near, nil)}, make(chan error, 1)
		c.notify(func(cause error) { causes <- cause })
		c.upstreamWaitSince.Store(1)
		c.cutIfGone(2, func(c *conn) bool {
			if !waiting {
				c.upstreamWaitSince.Store(0) // as an upgrade does
			}
			return true
		})
		if cut := c.cutCause() != nil; cut != waiting || cut != (len(causes) == 1) {
			t.Errorf("waiting %v: cut %v, exchange notified %v", waiting, cut, len(causes) == 1)
		}
	}
}
