package intake

import (
	"cmp"
	"net"
	"net/netip"
	"time"

	"github.com/drawbridge-gateway/drawbridge/bridge/cidr"
	"github.com/drawbridge-gateway/drawbridge/bridge/limit"
	"github.com/drawbridge-gateway/drawbridge/bridge/proxyproto"
	"github.com/drawbridge-gateway/drawbridge/bridge/socket"
	"github.com/drawbridge-gateway/drawbridge/certs"
)

// Rules say which connections are taken, in one revision.
type Rules struct {
	// ProxyProtocol says whose PROXY protocol headers are believed. Nil: no
	// connection begins with one.
	ProxyProtocol *proxyproto.Trust

	// Access says which clients are served; nil: all. It does not apply to the
	// connections of Proxies, which carry requests of others.
	Access  *cidr.Access
	Proxies *cidr.Peers

	MaxConnections int // open at once; 0: no limit
	MaxPerClient   int // open at once from one IP address; 0: no limit

	// Rate is how many connections are taken in a time, RatePerClient how many
	// of one client.
	Rate, RatePerClient limit.Rate

	// HandshakeTimeout bounds the PROXY protocol header, and after it the TLS
	// handshake. 0: 10s.
	HandshakeTimeout time.Duration
}

// Timeout returns HandshakeTimeout or its default.
func (r *Rules) Timeout() time.Duration { return cmp.Or(r.HandshakeTimeout, 10*time.Second) }

// An Ending says why a connection was refused, for the log.
type Ending string

// Why a connection is refused.
const (
	NoHeader        Ending = "no PROXY protocol header"
	LimitReached    Ending = "limit reached"
	NoAccess        Ending = "no access"
	HandshakeFailed Ending = "handshake failed"
	ShuttingDown    Ending = "shutdown"
)

// A Refusal says why a connection is not served.
type Refusal struct {
	How    Ending
	Reason certs.Reason // of Err
	Err    error        // nil: How says it all
}

// A Conn is a connection that was accepted. Its fields are set by Enter and
// Announce, and are not changed afterwards.
type Conn struct {
	// Who is whose connection it is; nobody's before its PROXY protocol header
	// was read.
	Who proxyproto.Announced

	// Addr is the client's address. It is invalid for clients of a unix-domain
	// socket, which are all on this machine.
	Addr netip.Addr

	raw   net.Conn
	owner Owner

	entered, left bool // guarded by Intake.mu
}

// Name is what the log calls the client.
func (c *Conn) Name() string {
	addr := c.Who.Source
	if addr == nil {
		addr = c.raw.RemoteAddr()
	}
	return cmp.Or(addr.String(), addr.Network())
}

// Enter takes a connection into the Intake's care, if r allows it. Else it closes
// raw, and the owner is not used. The caller calls Leave when the connection is
// closed, and Done when nothing works on it any more.
func (i *Intake) Enter(c *Conn, raw net.Conn, r *Rules, owner Owner) bool {
	c.raw, c.owner = raw, owner
	if r.ProxyProtocol == nil {
		c.Who = proxyproto.Announced{Source: raw.RemoteAddr(), Destination: raw.LocalAddr()}
	}
	if how := i.admit(c, r); how != "" {
		// A reset leaves no TIME_WAIT behind, of which a flood would make many.
		socket.New(raw, nil).Reset()
		return false
	}
	return true
}

// Announce reads c's PROXY protocol header, if r wants one, and checks r's limits
// for the client that it announces. It does not close a connection that it refuses.
func (i *Intake) Announce(c *Conn, r *Rules) *Refusal {
	if r.ProxyProtocol == nil {
		return nil
	}
	who, err := r.ProxyProtocol.Accept(c.raw, r.Timeout())
	if err != nil {
		return &Refusal{NoHeader, certs.Reason(i.count.unannounced.Add(err)), err}
	}
	c.Who = who
	if how := i.admit(c, r); how != "" {
		return &Refusal{How: how}
	}
	return nil
}

// admit counts c, and its client once that is known, unless r does not allow it:
// then it says why. A rate is spent last, by connections within all other limits.
func (i *Intake) admit(c *Conn, r *Rules) Ending {
	known := c.Who.Source != nil
	addr := netip.Addr{}
	if known {
		addr = addressOf(c.Who.Source)
		if !r.Access.Serves(addr) && !r.Proxies.Has(c.Who.Source) {
			i.count.denied.Add(1)
			i.log.Debug("connection refused: the client has no access", "client", c.Name())
			return NoAccess
		}
	}
	how := i.enter(c, r, addr, known)
	if how == LimitReached {
		i.count.rejected.Add(1)
		i.log.Debug("connection refused: limit reached", "client", c.Name())
	}
	return how
}

func (i *Intake) enter(c *Conn, r *Rules, addr netip.Addr, known bool) Ending {
	i.mu.Lock()
	defer i.mu.Unlock()
	fresh := !c.entered
	switch {
	case fresh && i.closing, c.left:
		return ShuttingDown
	case fresh && r.MaxConnections > 0 && len(i.conns) >= r.MaxConnections,
		r.MaxPerClient > 0 && addr.IsValid() && i.perClient[addr] >= r.MaxPerClient,
		known && i.tooFast(addr, r):
		return LimitReached
	}
	if fresh {
		c.entered = true
		i.conns[c] = struct{}{}
		i.work.Add(1)
		i.count.accepted.Add(1)
		i.count.open.Add(1)
		i.options.Descriptors.AddClients(1)
	}
	if c.Addr = addr; addr.IsValid() {
		i.perClient[addr]++
	}
	return ""
}

// tooFast reports whether another connection of a client is over r's rates.
func (i *Intake) tooFast(addr netip.Addr, r *Rules) bool {
	if r.Rate.Count == 0 && r.RatePerClient.Count == 0 {
		return false
	}
	var p limit.Pass // of which nothing is to be given back
	limits := limit.Limits{Rate: r.Rate, RatePerClient: r.RatePerClient}
	return i.options.Limiter.Enter(&p, addr, time.Now(), &limits).Kind != limit.None
}

// Leave says that a connection is closed. It is called once for each that entered.
func (i *Intake) Leave(c *Conn) {
	i.mu.Lock()
	defer i.mu.Unlock()
	c.left = true
	delete(i.conns, c)
	if c.Addr.IsValid() {
		if i.perClient[c.Addr]--; i.perClient[c.Addr] == 0 {
			delete(i.perClient, c.Addr)
		}
	}
	i.count.open.Add(-1)
	i.options.Descriptors.AddClients(-1)
	if i.closing && len(i.conns) == 0 {
		close(i.drained)
	}
}

// Done says that nothing works on a connection any more. It is called once for
// each that entered.
func (i *Intake) Done() { i.work.Done() }

// addressOf returns the IP address of a peer; the zero Addr if it has none.
func addressOf(addr net.Addr) netip.Addr {
	tcp, ok := addr.(*net.TCPAddr)
	if !ok {
		return netip.Addr{}
	}
	ip, _ := netip.AddrFromSlice(tcp.IP) // without a zone, which no prefix contains
	return ip.Unmap()
}
