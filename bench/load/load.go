// Package load is the client side of a measurement: it drives traffic through
// a proxy, checks every returned byte, and counts.
//
// A Func owns the connections that it makes; the caller owns the Meter.
package load

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"sync"
	"time"
)

// A Target is the destination of a load.
type Target struct {
	Address string
	// TLS holds the TLS settings; nil means plaintext.
	TLS *tls.Config
}

// A Func drives traffic to target until ctx ends, and counts in m. It returns
// when all its goroutines have ended.
type Func func(ctx context.Context, target Target, m *Meter)

// dialTimeout bounds the time to make a connection through a proxy.
const dialTimeout = 20 * time.Second

// dial connects to the target. The connection is closed when ctx ends.
func (t Target) dial(ctx context.Context) (net.Conn, error) {
	d := net.Dialer{Timeout: dialTimeout}
	raw, err := d.DialContext(ctx, "tcp", t.Address)
	if err != nil {
		return nil, err
	}
	var c net.Conn = raw
	if t.TLS != nil {
		tlsConn := tls.Client(raw, t.TLS)
		if err := tlsConn.HandshakeContext(ctx); err != nil {
			_ = raw.Close()
			return nil, err
		}
		c = tlsConn
	}
	// Close the raw connection, because closing a tls.Conn may wait for a Write.
	stop := context.AfterFunc(ctx, func() { _ = raw.Close() })
	return &conn{Conn: c, stop: stop}, nil
}

// A conn detaches from its context when it is closed.
type conn struct {
	net.Conn
	stop func() bool
}

func (c *conn) Close() error {
	c.stop()
	return c.Conn.Close()
}

// errMismatch reports a connection that delivered unexpected bytes.
var errMismatch = errors.New("the bytes that came back are not those expected")

// each runs work n times in parallel, once for each connection, and returns
// when all have ended. An error before ctx ends counts as a failure.
func each(ctx context.Context, m *Meter, n int, work func(i int) error) {
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			if err := work(i); ctx.Err() == nil {
				m.fail(err)
			}
		})
	}
	wg.Wait()
}
