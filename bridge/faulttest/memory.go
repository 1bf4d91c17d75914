package faulttest

import (
	"context"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"time"
)

// inFlight is the maximum number of unread bytes in one direction before a write waits.
const inFlight = 64 << 10

// A memoryConn is one end of a connection in memory. It behaves like a TCP
// connection: writes return before the peer reads them, each direction ends
// separately, and a connection that is closed with unread bytes, or with
// SetLinger(0), is reset.
type memoryConn struct {
	shared      *sync.Cond // shared by both ends
	peer        *memoryConn
	local       net.Addr
	in          []byte // arrived and not yet read
	ended       bool   // the peer has ended its stream
	reset       bool   // the peer has reset the connection
	closed      bool   // this end is closed
	linger0     bool   // Close resets the connection
	read, write deadline
}

// A deadline is a read or write deadline.
type deadline struct {
	at    time.Time
	timer *time.Timer
}

func (d *deadline) passed() bool { return !d.at.IsZero() && !time.Now().Before(d.at) }

// set wakes every waiter now and when t is reached.
func (d *deadline) set(t time.Time, shared *sync.Cond) {
	if d.timer != nil {
		d.timer.Stop()
		d.timer = nil
	}
	if d.at = t; !t.IsZero() {
		d.timer = time.AfterFunc(time.Until(t), shared.Broadcast)
	}
	shared.Broadcast()
}

// Pair returns the two ends of a connection in memory.
func Pair() (client, server net.Conn) {
	shared := sync.NewCond(new(sync.Mutex))
	a := &memoryConn{shared: shared, local: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 40000}}
	b := &memoryConn{shared: shared, local: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 80}}
	a.peer, b.peer = b, a
	return a, b
}

// Read implements net.Conn.
func (c *memoryConn) Read(p []byte) (int, error) {
	c.shared.L.Lock()
	defer c.shared.L.Unlock()
	for {
		switch {
		case c.closed:
			return 0, net.ErrClosed
		case c.read.passed():
			return 0, os.ErrDeadlineExceeded
		case len(p) == 0:
			return 0, nil
		case len(c.in) > 0:
			n := copy(p, c.in)
			c.in = c.in[n:]
			c.shared.Broadcast()
			return n, nil
		case c.reset:
			return 0, syscall.ECONNRESET
		case c.ended:
			return 0, io.EOF
		}
		c.shared.Wait()
	}
}

// Write implements net.Conn.
func (c *memoryConn) Write(p []byte) (n int, err error) {
	c.shared.L.Lock()
	defer c.shared.L.Unlock()
	for {
		switch {
		case c.closed:
			return n, net.ErrClosed
		case c.write.passed():
			return n, os.ErrDeadlineExceeded
		case c.reset:
			return n, syscall.ECONNRESET
		case c.peer.ended:
			return n, syscall.EPIPE
		case c.peer.closed:
			c.reset = true // the peer's kernel would answer with a reset
			return n, syscall.ECONNRESET
		case len(p) == 0:
			return n, nil
		}
		if room := min(inFlight-len(c.peer.in), len(p)); room > 0 {
			c.peer.in = append(c.peer.in, p[:room]...)
			n, p = n+room, p[room:]
			c.shared.Broadcast()
			continue
		}
		c.shared.Wait()
	}
}

// CloseWrite ends the stream toward the peer.
func (c *memoryConn) CloseWrite() error {
	c.shared.L.Lock()
	defer c.shared.L.Unlock()
	if c.closed {
		return net.ErrClosed
	}
	c.peer.ended = true
	c.shared.Broadcast()
	return nil
}

// Close implements net.Conn.
func (c *memoryConn) Close() error {
	c.shared.L.Lock()
	defer c.shared.L.Unlock()
	if c.closed {
		return net.ErrClosed
	}
	c.closed = true
	c.peer.reset = c.peer.reset || c.linger0 || len(c.in) > 0
	c.peer.ended = true
	c.in = nil
	c.read.set(time.Time{}, c.shared)
	c.write.set(time.Time{}, c.shared)
	return nil
}

// SetLinger makes Close reset the connection if seconds is 0.
func (c *memoryConn) SetLinger(seconds int) error {
	c.shared.L.Lock()
	defer c.shared.L.Unlock()
	c.linger0 = seconds == 0
	return nil
}

// LocalAddr implements net.Conn.
func (c *memoryConn) LocalAddr() net.Addr { return c.local }

// RemoteAddr implements net.Conn.
func (c *memoryConn) RemoteAddr() net.Addr { return c.peer.local }

// SetDeadline implements net.Conn.
func (c *memoryConn) SetDeadline(t time.Time) error {
	return c.setDeadlines(t, &c.read, &c.write)
}

// SetReadDeadline implements net.Conn.
func (c *memoryConn) SetReadDeadline(t time.Time) error { return c.setDeadlines(t, &c.read) }

// SetWriteDeadline implements net.Conn.
func (c *memoryConn) SetWriteDeadline(t time.Time) error { return c.setDeadlines(t, &c.write) }

func (c *memoryConn) setDeadlines(t time.Time, all ...*deadline) error {
	c.shared.L.Lock()
	defer c.shared.L.Unlock()
	if c.closed {
		return net.ErrClosed
	}
	for _, d := range all {
		d.set(t, c.shared)
	}
	return nil
}

// A Listener accepts connections in memory.
type Listener struct {
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

// Listen returns a Listener.
func Listen() *Listener {
	return &Listener{conns: make(chan net.Conn), closed: make(chan struct{})}
}

// Accept implements net.Listener.
func (l *Listener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

// Dial connects to the Listener.
func (l *Listener) Dial(ctx context.Context) (net.Conn, error) {
	client, server := Pair()
	select {
	case l.conns <- server:
		return client, nil
	case <-l.closed:
		return nil, syscall.ECONNREFUSED
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// Close implements net.Listener.
func (l *Listener) Close() error {
	l.once.Do(func() { close(l.closed) })
	return nil
}

// Addr implements net.Listener.
func (l *Listener) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 80} }
