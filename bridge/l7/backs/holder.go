package backs

import "github.com/drawbridge-gateway/drawbridge/bridge/live"

// A holder is the upstream.Holder of a connection whose version of HTTP is chosen in the
// handshake.
type holder struct {
	c1 *conn1
	c2 *conn2
}

// Retire implements upstream.Holder.
func (h holder) Retire() {
	h.c1.retire()
	h.c2.retire()
}

// Work implements upstream.Holder. An HTTP/1.1 connection that is not idle carries a
// request, or a request waits for it.
func (h holder) Work() (requests int, held bool) {
	if n, ok := h.c2.requests(); ok {
		return n, true
	}
	p := h.c1.pool
	p.mu.Lock()
	defer p.mu.Unlock()
	if h.c1.idle {
		return 0, true
	}
	return 1, true
}

// requests returns how many streams are open. ok is false if the connection is not
// known to be HTTP/2.
func (c *conn2) requests() (n int, ok bool) {
	c.mu.Lock()
	h := c.http
	c.mu.Unlock()
	if h == nil {
		return 0, false
	}
	return h.Streams(), true
}

// Protocol implements upstream.Holder. Until the handshake has chosen HTTP/2, it
// reports HTTP/1.1.
func (h holder) Protocol() live.Protocol {
	if _, ok := h.c2.requests(); ok {
		return live.HTTP2
	}
	return live.HTTP1
}

// An upgraded is the upstream.Holder of a connection that carries one upgraded request
// to its end.
type upgraded struct{}

// Retire implements upstream.Holder. It does nothing: the connection ends with its
// request.
func (upgraded) Retire() {}

// Work implements upstream.Holder.
func (upgraded) Work() (requests int, held bool) { return 0, false }

// Protocol implements upstream.Holder.
func (upgraded) Protocol() live.Protocol { return live.Tunnel }
