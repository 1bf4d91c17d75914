package policy

import (
	"net"
	"net/netip"

	"github.com/drawbridge-gateway/drawbridge/bridge/l7/message"
)

// A Connection is what is known about a client's connection.
type Connection struct {
	Source  net.Addr   // the peer; with the PROXY protocol, the address it announced
	Client  string     // the peer's IP address; "" if it has none
	Address netip.Addr // the same; invalid if it has none
	Port    string     // the port that the client connected to; may be ""
	TLS     bool
	Session Session // of TLS
}

// Facts are what is known about a request. They are used again for the next
// request, after Reset.
type Facts struct {
	Request    *message.Request // changed in place
	Connection *Connection

	Client    string     // the client's IP address; "" if it has none
	Address   netip.Addr // the same; invalid if it has none
	Scheme    string     // "http" or "https": what the client used
	Target    Target
	RequestID string // "" if the listener gives requests no id

	// Names of what handles the request; "" as long as that is not decided.
	Listener, Route, Upstream, Endpoint string

	claims  claims       // what a trusted proxy says about the request
	hops    []netip.Addr // see followForwarded; reused
	scratch []byte       // for building values; reused
}

// maxScratch bounds the scratch space that Reset keeps: the next request most
// likely needs less.
const maxScratch = 4 << 10

// Begin starts the facts of a request that came on c.
func (f *Facts) Begin(r *message.Request, c *Connection) {
	f.Request, f.Connection, f.Client, f.Address = r, c, c.Client, c.Address
}

// Reset forgets everything but the slices, which the next request uses again.
func (f *Facts) Reset() {
	scratch := f.scratch
	if cap(scratch) > maxScratch {
		scratch = nil
	}
	*f = Facts{hops: f.hops[:0], scratch: scratch[:0]}
}

// FromProxy reports whether the request came on the connection of a trusted proxy,
// which may carry requests of many users.
func (f *Facts) FromProxy() bool { return f.claims.trusted }

// Authority returns the host that the client asked for, with its port if it gave
// one.
func (f *Facts) Authority() string {
	if f.claims.authority != "" {
		return f.claims.authority
	}
	return f.Target.Authority
}

// Host returns the host that the client asked for, without a port.
func (f *Facts) Host() string {
	if f.claims.host != "" {
		return f.claims.host
	}
	return f.Target.Host
}
