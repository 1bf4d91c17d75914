package resolve

import (
	"context"
	"encoding/binary"
	"net"
	"net/netip"
	"strings"
	"sync"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

// A lookup resolves one name. Its connections close when ctx ends; package net
// alone would keep them open.
type lookup struct {
	ctx    context.Context
	server netip.AddrPort // the server to query; zero: the system's servers

	mu       sync.Mutex
	ttl      time.Duration // the lowest TTL so far
	hasTTL   bool          // ttl is set
	answered map[string]*answered
	err      error // a panic while reading a message
}

// answered records which answers arrived for one name. With search domains, a
// lookup queries several names.
type answered struct{ v4, v6, addresses bool }

func (l *lookup) resolver() *net.Resolver {
	return &net.Resolver{PreferGo: true, Dial: l.dial}
}

// dial connects the resolver to a server; the resolver passes the system's
// address.
func (l *lookup) dial(ctx context.Context, network, address string) (net.Conn, error) {
	if err := l.ctx.Err(); err != nil {
		return nil, err
	}
	if l.server.IsValid() {
		address = l.server.String()
	}
	var d net.Dialer
	conn, err := d.DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	w := wire{lookup: l, stop: context.AfterFunc(l.ctx, func() { conn.Close() })}
	if udp, ok := conn.(*net.UDPConn); ok {
		return &packets{udp, w}, nil
	}
	return &stream{Conn: conn, wire: w}, nil
}

// receive processes a message from a server. It runs in goroutines of package
// net, which do not recover from panics.
func (l *lookup) receive(message []byte, id uint16) {
	if err := l.parse(message, id); err != nil {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.err = err
	}
}

func (l *lookup) parse(message []byte, id uint16) (err error) {
	defer catch(&err)
	r, ok := readResponse(message, id)
	if !ok {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if r.hasTTL && (!l.hasTTL || r.ttl < l.ttl) {
		l.ttl, l.hasTTL = r.ttl, true
	}
	name := strings.ToLower(r.name)
	if l.answered == nil {
		l.answered = make(map[string]*answered)
	}
	h := l.answered[name]
	if h == nil {
		h = &answered{}
		l.answered[name] = h
	}
	h.v4 = h.v4 || r.final && r.kind == dnsmessage.TypeA
	h.v6 = h.v6 || r.final && r.kind == dnsmessage.TypeAAAA
	h.addresses = h.addresses || r.addresses
	return nil
}

// panicked returns a panic that occurred while reading a message, or nil.
func (l *lookup) panicked() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.err
}

// whole reports whether the answers for both address families are known. The
// resolver accepts one family, and does not report why the other is missing.
func (l *lookup) whole() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, h := range l.answered {
		if h.addresses {
			return h.v4 && h.v6
		}
	}
	return true // from /etc/hosts
}

// goodFor returns the lifetime of the answer, or 0 if unknown.
func (l *lookup) goodFor() time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.hasTTL {
		return 0
	}
	return min(max(l.ttl, minTTL), maxTTL)
}

// A wire inspects the messages on a connection to a server.
type wire struct {
	lookup *lookup
	stop   func() bool // unregisters the close at the end of the lookup
	id     uint16      // ID of the last query
}

// packets is a wire over UDP: each message is a packet.
type packets struct {
	*net.UDPConn
	wire
}

func (c *packets) Write(p []byte) (int, error) {
	if len(p) >= 2 {
		c.id = binary.BigEndian.Uint16(p)
	}
	return c.UDPConn.Write(p)
}

func (c *packets) Read(p []byte) (int, error) {
	n, err := c.UDPConn.Read(p)
	if err == nil {
		c.lookup.receive(p[:n], c.id)
	}
	return n, err
}

func (c *packets) Close() error {
	c.stop()
	return c.UDPConn.Close()
}

// A stream is a wire over TCP: each message has a length prefix (RFC 1035,
// section 4.2.2).
type stream struct {
	net.Conn
	wire
	got []byte // the current message with its length prefix: at most 64 KiB
}

func (c *stream) Write(p []byte) (int, error) {
	if len(p) >= 4 {
		c.id = binary.BigEndian.Uint16(p[2:])
	}
	return c.Conn.Write(p)
}

func (c *stream) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.got = append(c.got, p[:n]...)
	for len(c.got) >= 2 {
		end := 2 + int(binary.BigEndian.Uint16(c.got))
		if len(c.got) < end {
			break
		}
		c.lookup.receive(c.got[2:end], c.id)
		c.got = c.got[end:]
	}
	return n, err
}

func (c *stream) Close() error {
	c.stop()
	return c.Conn.Close()
}
