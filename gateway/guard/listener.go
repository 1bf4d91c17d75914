// Package guard bounds the connections of the gateway's own servers: the admin
// service and ops. Without bounds, clients that only connect would take every
// file descriptor from traffic.
//
// A Listener has room for a fixed number of connections, and for fewer of one
// address. When it is full, the oldest connection that has proven nothing yet
// makes room: who floods the server loses its own connections, and whoever comes
// with a certificate or a request still gets in.
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
	Connections int // at once; at least 1
	PerAddress  int // at once of one IP address; 0: as Connections

	Logger hclog.Logger // nil discards
}

// Limits returns how many connections one of the gateway's own servers has room
// for, where the process may have so many descriptors (0: unknown), and how many
// of them one address may have.
func Limits(descriptors int) (connections, perAddress int) {
	connections = 256
	if descriptors > 0 {
		connections = min(max(descriptors/32, 8), connections)
	}
	return connections, max(connections/4, 4)
}

// A Listener is a net.Listener with bounds. What it accepts is a *Conn.
type Listener struct {
	net.Listener
	o     Options
	limit *Limiter

	mu    sync.Mutex
	open  int
	by    map[netip.Addr]int
	fresh list.List // of *Conn that have proven nothing, oldest first
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

// Accept implements net.Listener. Connections for which there is no room are
// closed.
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

// admit makes room for c. False: there is none.
func (l *Listener) admit(c *Conn) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.by[c.from] >= l.o.PerAddress && c.from.IsValid() {
		l.tell("an address has as many connections as it may have: further ones are closed", c)
		return false
	}
	if l.open >= l.o.Connections {
		oldest := l.fresh.Front()
		if oldest == nil {
			l.tell("there is no room for further connections: they are closed", c)
			return false
		}
		l.tell("there is no room for further connections: the oldest that has shown neither a certificate nor a request is closed", c)
		victim := oldest.Value.(*Conn)
		l.forget(victim)
		reset(victim.Conn)
	}
	l.open++
	l.by[c.from]++
	c.at = l.fresh.PushBack(c)
	c.counted = true
	return true
}

func (l *Listener) tell(what string, c *Conn) {
	if left, ok := l.limit.Allow(); ok {
		l.o.Logger.Warn(what, "address", l.Addr().String(), "client", c.RemoteAddr().String(), "limit", l.o.Connections, "limit_per_address", l.o.PerAddress, "lines_left_out", left)
	}
}

// forget gives back the place of c. The caller holds l.mu.
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
		l.fresh.Remove(c.at)
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
	from    netip.Addr    // not valid: no IP address
	at      *list.Element // in of.fresh; nil: it has proven something
	counted bool
}

// Close implements net.Conn.
func (c *Conn) Close() error {
	c.of.mu.Lock()
	c.of.forget(c)
	c.of.mu.Unlock()
	return c.Conn.Close()
}

// NetConn returns the connection that c is.
func (c *Conn) NetConn() net.Conn { return c.Conn }

// Prove says whether the client is worth keeping when there is no room: it has
// shown a certificate, or is being answered.
func (c *Conn) Prove(worth bool) {
	c.of.mu.Lock()
	defer c.of.mu.Unlock()
	switch {
	case !c.counted:
	case worth && c.at != nil:
		c.of.fresh.Remove(c.at)
		c.at = nil
	case !worth && c.at == nil:
		c.at = c.of.fresh.PushBack(c)
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
