package load

import (
	"context"
	"fmt"

	"github.com/drawbridge-gateway/drawbridge/bench/wire"
)

// HTTPUp repeats POST requests with bodies of size bytes on each connection.
// The backend checks and counts the bytes. The units of the meter are the bytes
// sent.
func HTTPUp(conns int, size uint64) Func {
	return func(ctx context.Context, target Target, m *Meter) {
		each(ctx, m, conns, func(int) error {
			conn, err := target.dial(ctx)
			if err != nil {
				return err
			}
			c := &httpConn{conn: conn, buf: make([]byte, 4<<10)}
			defer c.close()
			c.request = fmt.Appendf(nil, "POST /sink/%d/", size)
			c.seedAt = len(c.request)
			c.request = fmt.Appendf(c.request, "0123456789abcdef HTTP/1.1\r\nHost: bench.test\r\nContent-Length: %d\r\n\r\n", size)
			if err := c.post(size, func(int) {}); err != nil {
				return err
			}
			if !m.allReady(ctx) {
				return nil
			}
			for {
				if err := c.post(size, m.add); err != nil {
					return err
				}
			}
		})
	}
}

// post sends a request with a body of size bytes, and reads its empty answer.
// It passes count the number of body bytes as they are sent.
func (c *httpConn) post(size uint64, count func(int)) error {
	seed := c.reseed()
	if _, err := c.conn.Write(c.request); err != nil {
		return err
	}
	for offset := uint64(0); offset < size; {
		n, err := c.conn.Write(wire.At(seed, offset, int(min(size-offset, 128<<10))))
		if err != nil {
			return err
		}
		count(n)
		offset += uint64(n)
	}
	return c.answer(seed, func(int) {})
}
