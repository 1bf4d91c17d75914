// Package load is the clients' side of a measurement: it drives traffic through
// a proxy, checks every byte that comes back, and counts.
package load

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"sync"
	"time"
)

// A Target is where a load goes.
type Target struct {
	Address string
	// TLS is how to speak to it; nil is plaintext.
	TLS *tls.Config
}

// A Func drives traffic to target until ctx ends, and tells m. It returns when
// everything that it started has ended.
type Func func(ctx context.Context, target Target, m *Meter)

// dialTimeout bounds what a connection through a proxy may take to be made.
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
		over := tls.Client(raw, t.TLS)
		if err := over.HandshakeContext(ctx); err != nil {
			_ = raw.Close()
			return nil, err
		}
		c = over
	}
	// The raw connection, because closing a tls.Conn may wait for a Write.
	stop := context.AfterFunc(ctx, func() { _ = raw.Close() })
	return &conn{Conn: c, stop: stop}, nil
}

// A conn forgets its context once it is closed.
type conn struct {
	net.Conn
	stop func() bool
}

func (c *conn) Close() error {
	c.stop()
	return c.Conn.Close()
}

// errMismatch is a connection that brought what it should not have.
var errMismatch = errors.New("the bytes that came back are not those expected")

// each runs work n times side by side, once for each connection, and returns
// when all have ended. What fails before ctx ends is counted as failed.
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
