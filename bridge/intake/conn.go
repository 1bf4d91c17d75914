package intake

import (
	"cmp"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/drawbridge-gateway/drawbridge/bridge/cidr"
	"github.com/drawbridge-gateway/drawbridge/bridge/limit"
	"github.com/drawbridge-gateway/drawbridge/bridge/proxyproto"
	"github.com/drawbridge-gateway/drawbridge/bridge/socket"
	"github.com/drawbridge-gateway/drawbridge/bridge/validity"
	"github.com/drawbridge-gateway/drawbridge/certs"
)

// Rules decide which connections are admitted, in one revision.
type Rules struct {
	// ProxyProtocol lists the peers whose PROXY protocol headers are trusted. Nil:
	// connections begin without a header.
	ProxyProtocol *proxyproto.Trust

	// Access decides which clients are admitted; nil admits all. It does not apply to
	// connections of Proxies, which carry requests of other clients.
	Access  *cidr.Access
	Proxies *cidr.Peers

	MaxConnections int // maximum open connections; 0: no limit
	MaxPerClient   int // maximum open connections from one IP address; 0: no limit

	// Rate limits how many connections are admitted in a period, and RatePerClient how
	// many from one client.
	Rate, RatePerClient limit.Rate

	// HandshakeTimeout bounds reading the PROXY protocol header, and then the TLS
	// handshake. 0: 10s.
	HandshakeTimeout time.Duration
}

// Timeout returns HandshakeTimeout or its default.
func (r *Rules) Timeout() time.Duration { return cmp.Or(r.HandshakeTimeout, 10*time.Second) }

// Age returns the maximum age of one connection. It is most, minus a random part of up
// to a tenth, so that connections that began together do not end together. 0: no limit.
func Age(most time.Duration) time.Duration {
	if most <= 0 {
		return 0
	}
	return most - rand.N(most/10+1)
}

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

// A Refusal says why a connection was refused.
type Refusal struct {
	Ending Ending
	Reason certs.Reason // the reason of Err
	Err    error        // nil if Ending alone explains the refusal
}

// A Conn is an accepted connection. Enter and Announce set its fields, which do not
// change afterward.
type Conn struct {
	// Revision is the live revision when the connection was accepted; 0: unknown. The
	// server sets it before Enter.
	Revision int64

	// Announced is the client that the connection belongs to. Its Source is nil until the
	// PROXY protocol header was read.
	Announced proxyproto.Announced

	// Addr is the client's address. It is invalid for clients of a unix-domain socket,
	// which run on this machine.
	Addr netip.Addr

	// Member holds whether the client still verifies; see Verified.
	Member validity.Member

	raw    net.Conn
	owner  Owner
	intake *Intake

	id    uint64 // set by Enter
	began int64  // in nanoseconds since 1970; set by Enter

	refused atomic.Bool // the handshake failed; the connection stays open so that the client can read the alert

	// Guarded by Intake.mu.
	entered, hasLeft bool
	announced        bool // Announced is set and no longer changes
	end              ending
}

// Name returns the client's name for logs.
func (c *Conn) Name() string {
	addr := c.Announced.Source
	if addr == nil {
		addr = c.raw.RemoteAddr()
	}
	return cmp.Or(addr.String(), addr.Network())
}

// Enter admits a connection if r allows it, and reports whether it did. Otherwise it
// closes raw and does not use owner. After Enter the caller must call Leave once the
// connection is closed, and Done once no goroutine works on it.
func (i *Intake) Enter(c *Conn, raw net.Conn, r *Rules, owner Owner) bool {
	c.raw, c.owner, c.intake = raw, owner, i
	c.id, c.began = i.options.Numbers.Next(), time.Now().UnixNano()
	if r.ProxyProtocol == nil {
		c.Announced = proxyproto.Announced{Source: raw.RemoteAddr(), Destination: raw.LocalAddr()}
	}
	if how := i.admit(c, r); how != "" {
		// A reset leaves no TIME_WAIT state; a flood would otherwise create many.
		socket.New(raw, nil).Reset()
		return false
	}
	return true
}

// Announce reads c's PROXY protocol header, if r expects one, and checks r's limits for
// the announced client. It does not close a connection that it refuses.
func (i *Intake) Announce(c *Conn, r *Rules) *Refusal {
	if r.ProxyProtocol == nil {
		return nil
	}
	announced, err := r.ProxyProtocol.Accept(c.raw, r.Timeout())
	if err != nil {
		return &Refusal{NoHeader, certs.Reason(i.count.unannounced.Add(err)), err}
	}
	c.Announced = announced
	if how := i.admit(c, r); how != "" {
		return &Refusal{Ending: how}
	}
	return nil
}

// admit counts c, and its client once the client is known. If r does not allow the
// connection, admit returns why. It spends the rate last, so only connections within
// all other limits spend it.
func (i *Intake) admit(c *Conn, r *Rules) Ending {
	known := c.Announced.Source != nil
	addr := netip.Addr{}
	if known {
		addr = addressOf(c.Announced.Source)
		if !r.Access.Serves(addr) && !r.Proxies.Has(c.Announced.Source) {
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
	isNew := !c.entered
	switch {
	case isNew && i.closing, c.hasLeft:
		return ShuttingDown
	case isNew && r.MaxConnections > 0 && len(i.conns) >= r.MaxConnections,
		r.MaxPerClient > 0 && addr.IsValid() && i.perClient[addr] >= r.MaxPerClient,
		known && i.overRate(addr, r):
		return LimitReached
	}
	if isNew {
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
	c.announced = known
	return ""
}

// overRate reports whether another connection of a client exceeds r's rates.
func (i *Intake) overRate(addr netip.Addr, r *Rules) bool {
	if r.Rate.Count == 0 && r.RatePerClient.Count == 0 {
		return false
	}
	var p limit.Pass // a rate has nothing to release
	limits := limit.Limits{Rate: r.Rate, RatePerClient: r.RatePerClient}
	return i.options.Limiter.Enter(&p, addr, time.Now(), &limits).Kind != limit.None
}

// Verified makes c a member of Peers until it is closed. peer is the client that Handshake
// returned, or Plaintext.
func (i *Intake) Verified(c *Conn, s *socket.Socket, peer *certs.Peer) {
	s.SetGuard(&c.Member)
	i.peers.Add(&c.Member, peer, c)
	i.mu.Lock()
	hasLeft := c.hasLeft
	i.mu.Unlock()
	if hasLeft {
		i.peers.Remove(&c.Member)
	}
}

// Leave removes a closed connection. The server calls it once for each connection that
// entered.
func (i *Intake) Leave(c *Conn) {
	i.leave(c)
	i.peers.Remove(&c.Member)
}

func (i *Intake) leave(c *Conn) {
	i.mu.Lock()
	defer i.mu.Unlock()
	c.hasLeft = true
	c.end.stop()
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

// Done records that no goroutine works on a connection any more. The server calls it
// once for each connection that entered.
func (i *Intake) Done() { i.work.Done() }

// addressOf returns the IP address of a peer, or the zero Addr if it has none.
func addressOf(addr net.Addr) netip.Addr {
	tcp, ok := addr.(*net.TCPAddr)
	if !ok {
		return netip.Addr{}
	}
	ip, _ := netip.AddrFromSlice(tcp.IP) // without a zone: no prefix contains one
	return ip.Unmap()
}
