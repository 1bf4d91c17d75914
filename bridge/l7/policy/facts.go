package policy

import (
	"net"
	"net/netip"

	"github.com/drawbridge-gateway/drawbridge/bridge/l7/message"
)

// A Connection holds the facts about a client's connection.
type Connection struct {
	Source  net.Addr   // the peer; with the PROXY protocol, the address it announced
	Client  string     // the peer's IP address; "" if it has none
	Address netip.Addr // the peer's IP address; invalid if it has none
	Port    string     // the port that the client connected to; may be ""
	TLS     bool
	Session Session // the TLS session
}

// Facts holds the facts about a request. After Reset it is used for the next
// request.
type Facts struct {
	Request    *message.Request // changed in place
	Connection *Connection

	Client    string     // the client's IP address; "" if it has none
	Address   netip.Addr // the client's IP address; invalid if it has none
	Scheme    string     // "http" or "https", as the client used it
	Target    Target
	RequestID string // "" if the listener gives requests no ID

	// The names of the objects that handle the request; "" until each is chosen.
	Listener, Route, Upstream, Endpoint string

	claims  claims       // the claims of a trusted proxy about the request
	hops    []netip.Addr // see followForwarded; reused
	scratch []byte       // for building values; reused
}

// maxScratch bounds the scratch space that Reset keeps: the next request most
// likely needs less.
const maxScratch = 4 << 10

// Begin starts the facts of a request on c.
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

// FromProxy reports whether the connection belongs to a trusted proxy, so that it
// may carry requests of many users.
func (f *Facts) FromProxy() bool { return f.claims.trusted }

// Authority returns the requested host, with its port if the request has one.
func (f *Facts) Authority() string {
	if f.claims.authority != "" {
		return f.claims.authority
	}
	return f.Target.Authority
}

// Host returns the requested host, without a port.
func (f *Facts) Host() string {
	if f.claims.host != "" {
		return f.claims.host
	}
	return f.Target.Host
}
