// Package guard bounds the connections of the gateway's own servers: the admin service
// and ops. Without bounds, clients that only connect would use up the file descriptors
// that traffic needs.
//
// A Listener accepts a fixed number of connections, and fewer from one address. When it
// is full, it closes the oldest connection that has not proven itself with a
// certificate or a request. So a flood evicts its own connections, and legitimate
// clients can still connect. A Listener owns the connections that it accepts until they
// are closed.
package guard

import (
	"container/list"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
)

// Options bound a Listener.
type Options struct {
	Connections int // maximum open connections; at least 1
	PerAddress  int // maximum from one IP address; 0: same as Connections

	Logger hclog.Logger // nil discards
}

// Limits returns how many connections each of the gateway's own servers may have, and
// how many of them from one address, if the process may open the given number of
// descriptors (0: unknown).
func Limits(descriptors int) (connections, perAddress int) {
	connections = 256
	if descriptors > 0 {
		connections = min(max(descriptors/32, 8), connections)
	}
	return connections, max(connections/4, 4)
}

// A Listener is a net.Listener with bounds. Its connections are *Conns.
type Listener struct {
	net.Listener
	o     Options
	limit *Limiter

	mu       sync.Mutex
	open     int
	by       map[netip.Addr]int
	unproven list.List // holds each *Conn without proof, oldest first
}

// New bounds l.
func New(l net.Listener, o Options) *Listener {
	if o.PerAddress <= 0 {
		o.PerAddress = o.Connections
	}
	if o.Logger == nil {
		o.Logger = hclog.NewNullLogger()
	}
	return &Listener{Listener: l, o: o, limit: NewLimiter(10 * time.Second), by: map[netip.Addr]int{}}
}

// Accept implements net.Listener. It closes connections beyond the bounds.
func (l *Listener) Accept() (net.Conn, error) {
	for {
		raw, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		c := &Conn{Conn: raw, of: l, from: addressOf(raw)}
		if l.admit(c) {
			return c, nil
		}
		reset(raw)
	}
}

// admit makes room for c. It returns false if there is no room.
func (l *Listener) admit(c *Conn) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.by[c.from] >= l.o.PerAddress && c.from.IsValid() {
		l.warn("an address is at its connection limit: its further connections are closed", c)
		return false
	}
	if l.open >= l.o.Connections {
		oldest := l.unproven.Front()
		if oldest == nil {
			l.warn("the server is at its connection limit: further connections are closed", c)
			return false
		}
		l.warn("the server is at its connection limit: the oldest connection without a certificate or request is closed", c)
		victim := oldest.Value.(*Conn)
		l.forget(victim)
		reset(victim.Conn)
	}
	l.open++
	l.by[c.from]++
	c.at = l.unproven.PushBack(c)
	c.counted = true
	return true
}

func (l *Listener) warn(message string, c *Conn) {
	if suppressed, ok := l.limit.Allow(); ok {
		l.o.Logger.Warn(message, "address", l.Addr().String(), "client", c.RemoteAddr().String(), "limit", l.o.Connections, "limit_per_address", l.o.PerAddress, "lines_suppressed", suppressed)
	}
}

// forget frees the slot of c. The caller holds l.mu.
func (l *Listener) forget(c *Conn) {
	if !c.counted {
		return
	}
	c.counted = false
	l.open--
	if l.by[c.from]--; l.by[c.from] == 0 {
		delete(l.by, c.from)
	}
	if c.at != nil {
		l.unproven.Remove(c.at)
		c.at = nil
	}
}

// Open returns how many connections are open.
func (l *Listener) Open() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.open
}

// A Conn is a connection of a Listener.
type Conn struct {
	net.Conn
	of      *Listener
	from    netip.Addr    // invalid if the client has no IP address
	at      *list.Element // the element of of.unproven; nil: the connection has proven itself
	counted bool
}

// Close implements net.Conn.
func (c *Conn) Close() error {
	c.of.mu.Lock()
	c.of.forget(c)
	c.of.mu.Unlock()
	return c.Conn.Close()
}

// Write implements net.Conn. It closes the connection if the write fails: the client may
// have received only a part, and nothing may follow the gap. A close_notify that
// crypto/tls sends after a write that has timed out would look to the client like a
// forged record ("bad record MAC").
func (c *Conn) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	if err != nil {
		c.Close()
	}
	return n, err
}

// NetConn returns the underlying connection.
func (c *Conn) NetConn() net.Conn { return c.Conn }

// SetProven sets whether the connection is kept when the listener is full. Set it if
// the client has presented a certificate or has a request in progress.
func (c *Conn) SetProven(proven bool) {
	c.of.mu.Lock()
	defer c.of.mu.Unlock()
	switch {
	case !c.counted:
	case proven && c.at != nil:
		c.of.unproven.Remove(c.at)
		c.at = nil
	case !proven && c.at == nil:
		c.at = c.of.unproven.PushBack(c)
	}
}

func addressOf(c net.Conn) netip.Addr {
	if tcp, ok := c.RemoteAddr().(*net.TCPAddr); ok {
		return tcp.AddrPort().Addr().Unmap()
	}
	return netip.Addr{}
}

// reset closes a connection without leaving it in TIME_WAIT.
func reset(c net.Conn) {
	if tcp, ok := c.(*net.TCPConn); ok {
		tcp.SetLinger(0)
	}
	c.Close()
}
